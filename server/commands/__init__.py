"""The commands of f2l-admin and f2l-server, a file for each group."""
