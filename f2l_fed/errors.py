"""The errors of F2L-Fed: each is one sentence that says what is wrong and what to do.

Outside data (files, messages, configuration, command line) is checked where it enters and
answered with one of these. ``exit_code`` is the exit status of a command: 2 for usage,
configuration and data a user handed in, 1 for everything else.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AdmissionError",
    "ConfigError",
    "DataError",
    "F2LError",
    "LayoutMismatch",
    "PolicyRefusal",
    "RecordErased",
    "ReleaseError",
    "RoundError",
    "TargetError",
    "UsageError",
    "WireError",
    "ZooError",
    "is_disk_failure",
    "sentence",
    "shown",
    "visible",
]

LONGEST_TEXT = 1000
"""Most characters of a text from outside that is printed, stored or sent on."""


class F2LError(Exception):
    """The base of all errors that a user may see.

    Args:
        what: The fault, as a clause without a full stop.
        where: The file, key, site, round or tensor it concerns.
        expected: The right value or state.
        got: The value or state found.
        remedy: The way to mend it, as a sentence.
        transient: Whether a repetition may succeed although no OSError is the cause.
        code: Its key in `f2l_fed.wire.refusals`, where it says more than the kind of the error.

    >>> str(F2LError("steps is negative", where="[recipe] steps", expected=">= 0", got="-1",
    ...              remedy="Set it to 0 or more."))
    '[recipe] steps: steps is negative: expected >= 0, got -1. Set it to 0 or more.'
    """

    exit_code = 1
    longest_part = LONGEST_TEXT
    """Most characters of each of `where`, `expected` and `got`."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        remedy: str = "",
        transient: bool = False,
        code: str = "",
    ) -> None:
        self._transient, self.code = transient, code
        self.what, self.where, self.expected, self.got, self.remedy = (
            what,
            where,
            expected,
            got,
            remedy,
        )
        super().__init__(what)

    @property
    def transient(self) -> bool:
        """Whether a disk or an object store failed, so that a repetition may succeed."""
        return self._transient or is_disk_failure(self.__cause__)

    def __str__(self) -> str:
        text = f"{self._part(self.where)}: {self.what}" if self.where else self.what
        found = [
            f"{label} {self._part(value)}"
            for label, value in (("expected", self.expected), ("got", self.got))
            if value
        ]
        if found:
            text += ": " + ", ".join(found)
        text = text.rstrip(".") + "."
        return visible(f"{text} {self.remedy}" if self.remedy else text)

    def _part(self, text: str) -> str:
        return shown(text, self.longest_part)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (Ray); keyword-only arguments need help to do so.
        names = ("where", "expected", "got", "remedy", "transient", "code")
        return _rebuild, (type(self), self.what, {name: getattr(self, name) for name in names})


def is_disk_failure(error: BaseException | None) -> bool:
    """Whether an error is a failure of a disk; a missing file is not."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def shown(text: str, most: int = LONGEST_TEXT) -> str:
    """A text from outside as people and programs may get it: cut, and no control characters.

    Args:
        text: The text.
        most: Most characters of the result.

    >>> shown("a" * 6_000_000, 30)
    'aaaaaaaaaaa… (6000000 letters)'
    """
    clean = visible(text[: most + 1])
    if len(clean) <= most:
        return clean
    end = f"… ({len(text)} letters)"
    return clean[: max(most - len(end), 0)] + end


def sentence(error: OSError | UnicodeEncodeError) -> str:
    """An error of the system, or about text that can't be encoded, as one sentence."""
    if isinstance(error, UnicodeEncodeError):
        got = ascii(error.object)[:200]
        return f"text can't be encoded: got {got}. Use UTF-8 for arguments and in the terminal."
    where = f"{str(error.filename)[:200]}: " if error.filename else ""
    return visible(f"{where}{error.strerror or error}.")


def visible(text: str) -> str:
    """The text without control characters: some of it may come from outside."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _rebuild(kind: type[F2LError], what: str, more: dict[str, Any]) -> F2LError:
    return kind(what, **more)


class UsageError(F2LError):
    """A command or function was called in a way that can't be carried out."""

    exit_code = 2


class ConfigError(F2LError):
    """A configuration file or ``--set`` has an unknown key or an invalid value."""

    exit_code = 2


class DataError(F2LError):
    """Data handed in by a user can't be used as they are."""

    exit_code = 2


class TargetError(F2LError):
    """A target network can't be built or can't be generated."""

    exit_code = 2


class LayoutMismatch(F2LError):
    """Weights have another layout than the one in force."""

    longest_part = 200


class WireError(F2LError):
    """A message does not have the form that both sides agreed on."""

    longest_part = 200


class AdmissionError(F2LError):
    """An update may not enter the zoo."""


class ZooError(F2LError):
    """The weight zoo is damaged, was misused or can't be written."""


class RecordErased(ZooError):
    """A row was erased because its site asked to be forgotten."""


class ReleaseError(F2LError):
    """A release is missing, damaged or may not be served."""


class RoundError(F2LError):
    """A round can't go on."""


class PolicyRefusal(F2LError):
    """The site's own policy forbids what was asked; ``what`` is a code, and all that leaves."""
