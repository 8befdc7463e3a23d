"""An entry of a quarantine: whose submission, why it is there, and which shard has its networks."""

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
        site: Whose it is.
        round: Round in which it came.
        parent: The release that made its starts, or "".
        time_s: When it was put aside, seconds since the epoch.
        verdict: Why.
        lineage: Of the zoo it may be released to.
        keys: The records' keys, in the order of the shard's rows.
        metrics: Their metrics.
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
        """Raises ZooError if it isn't what `to_json` wrote."""
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
            raise ZooError("not an entry of a quarantine", where=where, got=str(error)) from error
