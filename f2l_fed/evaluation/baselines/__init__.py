"""Baselines: other ways to spend the same rounds, sites, examples and local steps.

They run in one process, as a simulation of what sites and server would exchange: no message is
sent, and what it would have weighed is counted.
"""
