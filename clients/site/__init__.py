"""A site and what it keeps: configuration, policy, limits, records of what leaves, its network."""
