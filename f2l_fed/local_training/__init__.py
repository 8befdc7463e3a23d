"""A site's own training: its probe, its choice of a start and its fine-tuning."""
