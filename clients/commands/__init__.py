"""The commands of f2l-site."""
