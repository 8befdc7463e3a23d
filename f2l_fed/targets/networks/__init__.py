"""The built-in target networks: small, with one linear output layer each."""
