"""Couplings of starts with targets within a batch, one file each."""
