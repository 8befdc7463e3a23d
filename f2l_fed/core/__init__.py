"""Foundations of the packages: parsing, validation, random streams, durable files and locks."""
