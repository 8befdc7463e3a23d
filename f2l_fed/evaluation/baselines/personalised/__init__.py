"""Baselines for shared labels: a network of its own for every training site, after every round.

Where a label means the same everywhere, sites learn one task together and differ in which classes
they see or how. The measure is the accuracy of each training site's own network on its own test
examples, as in PFLlib (Zhang et al., arXiv 2312.04992). Everything runs in one process: no message
is sent, and what it would have weighed is counted.
"""
