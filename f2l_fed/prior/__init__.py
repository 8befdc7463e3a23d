"""The prior: the expected network of a site, given its probe."""
