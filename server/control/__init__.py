"""The control service of a federation: gRPC with mutual TLS, its rules, messages and client."""
