"""The versions of the wire protocol, and where messages and replies name theirs.

A site names the highest version that it speaks when it registers, when it renews its certificate
and in every reply; the server asks in the highest that both speak, and is answered in the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from flwr.app import RecordDict

OLDEST = 3
"""The oldest version that is spoken; a site that names none speaks this one."""

LATEST = 4
"""The latest version."""

SPOKEN = "protocol"
"""Key of the highest version that a site speaks, in its forms and in the head of its replies."""

CODED = "coding"
"""Key of the coding that the answer to a request may use; see `f2l_fed.wire.coding`."""

ARRAYS = "arrays"
"""Name of the record with all arrays of a message, from protocol 4 on."""

_HIGHEST = 999
_HEADS = ("update", "reply", "refusal")


def spoken_by_site(reply: RecordDict) -> int:
    """The highest version that the site of a reply names; `OLDEST` if it names none.

    Args:
        reply: Any reply, or refusal, of whatever content.
    """
    for name in _HEADS:
        head = reply.get(name)
        # A site may send a record of any kind under this name.
        named = head.get(SPOKEN) if head is not None else None
        if is_version(named):
            return named
    return OLDEST


def is_version(named: Any) -> TypeGuard[int]:
    """Whether a value from outside can be the highest version that a site speaks."""
    return type(named) is int and OLDEST <= named <= _HIGHEST


def common(spoken: int) -> int:
    """The version in which a site is asked that speaks up to this one.

    >>> common(3), common(5)
    (3, 4)
    """
    return max(OLDEST, min(spoken, LATEST))
