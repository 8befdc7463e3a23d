"""The generator of networks: prior, codec and flow, fitted on a zoo, and its candidates."""
