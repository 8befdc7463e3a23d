"""Explanations of generated networks by the updates that they come from."""
