"""A whole federation on one machine: its data and folder laid out, its rounds run and measured."""
