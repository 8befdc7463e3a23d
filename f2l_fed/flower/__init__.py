"""Adaptations of Flower that server and sites share."""
