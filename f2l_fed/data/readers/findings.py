"""Findings of a reader: remarks on what was converted, and all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from f2l_fed.errors import DataError

SHOWN = 5
"""Number of places that a problem names."""


class DataProblems(DataError):
    """Several problems of the same data, each a sentence of its own.

    Args:
        problems: The problems, at least one.
    """

    def __init__(self, problems: Sequence[DataError]) -> None:
        self.problems = tuple(problems)
        super().__init__("the data can't be used")

    def __str__(self) -> str:
        return " ".join(map(str, self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return DataProblems, (self.problems,)


@dataclass(slots=True)
class _Problem:
    where: str
    remedy: str
    expected: str
    count: int = 0
    shown: list[str] = field(default_factory=list)


class Findings:
    """The findings of one reading.

    Args:
        where: File or folder that problems name.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._remarks: dict[str, None] = {}
        self._problems: dict[str, _Problem] = {}

    @property
    def remarks(self) -> tuple[str, ...]:
        """The remarks, as sentences."""
        return tuple(self._remarks)

    @property
    def problems(self) -> tuple[DataError, ...]:
        """The problems, each an error of its own."""
        return tuple(_error(what, problem) for what, problem in self._problems.items())

    def remark(self, text: str) -> None:
        """Adds a sentence."""
        self._remarks[text] = None

    def remark_empty(self, column: str) -> None:
        """Adds the remark on a column that is a feature and has no value; once for each."""
        self.remark(f"Column {column!r} is empty, and all of its values count as missing.")

    def problem(
        self,
        what: str,
        places: Iterable[str] = (),
        *,
        count: int = 0,
        expected: str = "",
        remedy: str = "",
    ) -> None:
        """Adds a problem; the same words again count as more of it.

        Args:
            what: The fault, as a clause without a full stop.
            places: What was found and where, the first ones; more than `SHOWN` are not shown.
            count: How many there are in all; by default as many as places.
            expected: The right value.
            remedy: The way to mend it, as a sentence.
        """
        found = self._problems.setdefault(
            what, _Problem(where=self._where, remedy=remedy, expected=expected)
        )
        places = list(places)
        found.count += count or len(places)
        found.shown += places[: SHOWN - len(found.shown)]

    def require_none(self) -> None:
        """Raises DataError with all problems, unless there is none."""
        errors = self.problems
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise DataProblems(errors)


def _error(what: str, problem: _Problem) -> DataError:
    more = problem.count - len(problem.shown)
    got = ", ".join(problem.shown) + (f" and {more} more" if more > 0 and problem.shown else "")
    return DataError(
        f"{what} ({problem.count} in all)" if problem.count > 1 else what,
        where=problem.where,
        expected=problem.expected,
        got=got,
        remedy=problem.remedy,
    )
