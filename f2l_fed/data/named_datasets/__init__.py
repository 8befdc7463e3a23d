"""Real datasets that installed packages carry, one file each; nothing is ever downloaded."""
