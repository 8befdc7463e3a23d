"""Names of the files that hold something of one site."""

from __future__ import annotations

from hashlib import sha256


def site_digest(site: str) -> str:
    """The digest that a site's file names begin with; the name itself never becomes a path."""
    return sha256(site.encode()).hexdigest()[:32]
