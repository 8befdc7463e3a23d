"""Single networks from files into a zoo, and from a zoo into files."""
