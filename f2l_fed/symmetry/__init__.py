"""Symmetries of networks: permutations of outputs and of hidden units."""
