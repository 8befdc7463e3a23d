"""A page for a support mail: sections of plain lines, and the latest errors of logs, no secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.errors import shown

_TAIL_BYTES = 2**18
_LONGEST_LINE = 240
_LONGEST_READ = 2**11

_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL)
# Up to the last @, since a password may hold "@" and "/"; the second is without a scheme.
_USER = re.compile(r"(?<=://)\S*@|(?<![^\s/@])[^/\s@]+:(?!//)\S*@")
_NAME = (
    r"(?:authorization|bearer|token|secret|passw(?:or)?d|passphrase|credentials?"
    r"|(?:api|access|private)[_-]?key|(?<![a-z])pass(?![a-z]))"
)
_QUOTED = r"[bfru]{0,2}(?:\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?)"
_SCHEME = r"(?:(?:basic|bearer|digest|negotiate|token)\s+)?"
_NAMED = re.compile(
    rf"(?i)({_NAME}[\w-]*(?:[\"']?\s*[:=]\s*|[\"']\s*,\s*)){_SCHEME}(?:{_QUOTED}|\S+)"
)
# After a name alone, only what doesn't look like the next word of a sentence.
_SPOKEN = re.compile(rf"(?i)({_NAME}\s+)(?!…)(?:{_QUOTED}|(?=\S*[^a-z\s.,;])\S+|[^\s\",;]{{6,}})")
_WORD = re.compile(r"[A-Za-z0-9+_=-]{32,}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")
_ROUTINE = re.compile(r"\bINFO\b")
_ERROR = re.compile(
    r"(?i)\b(error|warning|critical|fatal|problem|failed|refused|denied|traceback|exception|"
    r"killed|can't|could not|not renewed|not ready|ended:)"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Args:
        title: Its title.
        rows: Names and values, a line each; a value without a name stands alone.
    """

    title: str
    rows: tuple[tuple[str, str], ...]


def page_text(title: str, sections: Iterable[Section]) -> str:
    """The page as plain text of short lines, without secrets and control characters.

    >>> print(page_text("doctor", [Section("disk", (("state", "3 GiB free"),))]))
    doctor
    <BLANKLINE>
    disk
      state  3 GiB free
    """
    lines = [title]
    for section in sections:
        lines += ["", section.title]
        width = max((len(name) for name, _ in section.rows), default=0)
        for name, value in section.rows or (("", "none"),):
            clean = shown(without_secrets(value[:_LONGEST_READ]), _LONGEST_LINE)
            lines.append(f"  {name:{width}}  {clean}" if name else f"  {clean}")
    return "\n".join(lines)


def without_secrets(text: str) -> str:
    """A text without keys, tokens, passwords, and users in addresses.

    >>> without_secrets("via http://ann:pw@proxy:3128, token=abcdefgh")
    'via http://…@proxy:3128, token=…'
    """
    text = _BLOCK.sub("…", text)
    text = _USER.sub("…@", text)
    text = _NAMED.sub(r"\1…", text)
    text = _SPOKEN.sub(r"\1…", text)
    return _WORD.sub(lambda word: "…" if _looks_random(word[0]) else word[0], text)


def _looks_random(word: str) -> bool:
    kinds = (str.isupper, str.islower, str.isdigit)
    return bool(_HEXADECIMAL.fullmatch(word)) or all(any(map(kind, word)) for kind in kinds)


def recent_errors(log: Path, most: int = 5) -> tuple[str, ...]:
    """The last lines of a log that tell of an error, oldest first, or why it can't be read.

    Args:
        log: The file; one that is absent has none.
        most: Limit on their number.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    except OSError as error:
        return (f"can't be read: {error.strerror or error}",)
    lines = (line.strip() for line in _BLOCK.sub("…", text).splitlines())
    return tuple(line for line in lines if _tells_of_error(line))[-most:]


def _tells_of_error(line: str) -> bool:
    return bool(_ERROR.search(line)) and not _ROUTINE.search(line)
