"""Words for sentences to people: numbers of things, and what is the matter with a file."""

from __future__ import annotations

import ssl


def number_of(count: int, thing: str, things: str = "") -> str:
    """A number with its noun, maybe with a verb, in the singular for one.

    Args:
        count: The number.
        thing: The noun.
        things: Its plural, where that is not the noun with "s".

    >>> number_of(1, "column"), number_of(2000, "column"), number_of(0, "class", "classes")
    ('1 column', '2000 columns', '0 classes')
    >>> number_of(1, "image was", "images were")
    '1 image was'
    """
    return f"{count} {thing if count == 1 else things or thing + 's'}"


def file_fault(error: Exception) -> str:
    """The fault of a file that can't be read: the system's words, or that it is damaged.

    >>> file_fault(FileNotFoundError(2, "No such file or directory")), file_fault(KeyError("x"))
    ('No such file or directory', 'damaged')
    """
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return "damaged"
