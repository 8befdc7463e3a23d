"""Evaluation at held-out sites: arms, their starts and accuracies, and summaries over sites."""
