"""The pictures of a held-out site as the report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

__all__ = ["ExampleSite", "ShownClass", "ShownPicture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPicture:
    """A picture that the site's network is asked about.

    Args:
        address: The picture, a ``data:`` address.
        said: Number of the class that the network names.
    """

    address: str
    said: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClass:
    """Some pictures of one class of a site.

    Args:
        number: The site's own label.
        learnt: Pictures that the site learns from, ``data:`` addresses.
        asked: Further ones.
    """

    number: int
    learnt: tuple[str, ...]
    asked: tuple[ShownPicture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleSite:
    """A held-out site and what its generated network says before any step.

    Args:
        name: The site.
        classes: Its classes, or the first of them.
        right: Number of all its further examples on which the network is right.
        total: Number of these.
    """

    name: str
    classes: tuple[ShownClass, ...]
    right: int
    total: int

    @staticmethod
    def letter(number: int) -> str:
        """The name of a class on the page."""
        return ascii_uppercase[number] if number < len(ascii_uppercase) else str(number)
