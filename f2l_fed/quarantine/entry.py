"""Quarantine entries: a submission, the verdict on it, and the shard with its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from f2l_fed.admission.verdict import Verdict
from f2l_fed.errors import ZooError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """A submission in quarantine.

    Args:
        id: 16 hexadecimal digits.
        site: The site.
        round: The round.
        parent: The release that made the starts; "" for the anchor.
        time_s: Time of the write, seconds since the epoch.
        verdict: The verdict on the submission.
        lineage: Lineage of the zoo it may be released to.
        keys: Keys of the records, in the order of the shard's rows.
        metrics: Metrics of the records, in the same order.
        shard: sha256 of the shard.
        weight_dim: D.
        context_dim: C.
    """

    id: str
    site: str
    round: int
    parent: str
    time_s: float
    verdict: Verdict
    lineage: str
    keys: tuple[str, ...]
    metrics: tuple[Mapping[str, float], ...]
    shard: str
    weight_dim: int
    context_dim: int

    def to_json(self) -> dict[str, Any]:
        """A JSON value that `from_json` reads back."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "verdict": self.verdict.to_json(),
            "keys": list(self.keys),
            "metrics": [dict(some) for some in self.metrics],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> QuarantineEntry:
        """Reads an entry that `to_json` wrote.

        Raises:
            ZooError: If the value is anything else.
        """
        try:
            return cls(
                **{
                    **value,
                    "verdict": Verdict.from_json(value["verdict"]),
                    "keys": tuple(value["keys"]),
                    "metrics": tuple(value["metrics"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ZooError("not a quarantine entry", where=where, got=str(error)) from error
