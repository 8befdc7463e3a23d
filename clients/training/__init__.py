"""A site's answers to the server: accepted requests, fine-tuning, probes, noised updates."""
