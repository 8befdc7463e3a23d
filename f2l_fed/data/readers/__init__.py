"""Readers of users' own data, for sites and simulations: arrays, tables, folders of images."""
