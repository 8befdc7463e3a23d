"""The way of a site into a federation: kit, keys, registration, renewal, check of all it needs."""
