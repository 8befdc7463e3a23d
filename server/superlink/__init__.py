"""Flower's SuperLink: its process, its client, and the guards on its messages."""
