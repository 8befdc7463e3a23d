"""A federation on disk: its folder, settings and releases."""
