"""The public-key infrastructure of a federation: authority, identities and revocations."""
