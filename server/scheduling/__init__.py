"""Scheduling: rounds that administrators ask for, as runs on the SuperLink."""
