"""Rounds: the coordinator, the exchange with the sites, ingest, and the state of a round."""
