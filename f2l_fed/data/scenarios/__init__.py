"""Scenarios: ways to divide a pool of examples among the sites of a simulation, one file each."""
