"""Audit of a release: diagnostics of a generator and the limits that they must keep."""
