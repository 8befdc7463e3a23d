"""Differential privacy of a site's messages: mechanism, accounting and private training."""
