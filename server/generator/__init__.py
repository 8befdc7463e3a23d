"""The generator of a federation: retraining, candidates, explanation, and the gate."""
