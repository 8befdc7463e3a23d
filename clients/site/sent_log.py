"""The record of everything that leaves a site, written before it leaves.

``sent.jsonl`` in the state folder: one JSON object a line, of which a crash may tear the last.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.site.policy import PolicyConfig, Work
from f2l_fed.core.durable_files import fsync
from f2l_fed.errors import PolicyRefusal
from f2l_fed.wire.protocol import ARRAYS
from f2l_fed.wire.refusals import Reason, reason_of

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, RecordDict

REFUSAL = "refusal"
"""Kind of the entries that count as no answer."""

SENT = "sent.jsonl"
"""Name of the record in the state folder."""

_BLOCK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class SentLog:
    """The record in one file.

    Args:
        path: The file, which may not exist yet.
    """

    path: Path

    @classmethod
    def in_folder(cls, state: Path) -> SentLog:
        """The record in a state folder."""
        return cls(state / SENT)

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first, without torn lines: those messages never left."""
        if not self.path.exists():
            return []
        return _parsed(self.path.read_bytes())

    def after(self, time: datetime) -> list[dict[str, Any]]:
        """Entries later than a time, oldest first; reads from the end, as far as needed."""
        found: list[dict[str, Any]] = []
        for entries in self._from_the_end():
            recent = [entry for entry in entries if entry["time"] > time.isoformat()]
            if entries and not recent:
                break
            found[:0] = recent
        return found

    def latest_budget(self) -> dict[str, Any] | None:
        """The privacy budget in the latest entry that has one; None where there is none."""
        for entries in self._from_the_end():
            for entry in reversed(entries):
                if budget := entry.get("budget"):
                    return dict(budget)
        return None

    def _from_the_end(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of one block after another, the last block first."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            begin, rest = file.seek(0, os.SEEK_END), b""
            while begin:
                end, begin = begin, max(begin - _BLOCK_BYTES, 0)
                file.seek(begin)
                block = file.read(end - begin) + rest
                # The block's first line may have begun before it.
                rest, whole = block.split(b"\n", 1) if begin and b"\n" in block else (block, b"")
                yield _parsed(whole if begin else block)

    def allow_round(self, policy: PolicyConfig, now: datetime) -> None:
        """Raises PolicyRefusal if another update would exceed the policy's rounds of a day.

        Updates count, not round numbers: the server could say the same number for ever.
        """
        today = self.after(now - timedelta(days=1))
        if sum(entry["kind"] == "update" for entry in today) >= policy.rounds_per_day:
            raise PolicyRefusal("too-many-rounds-today")

    def allow(self, policy: PolicyConfig, content: RecordDict, now: datetime) -> None:
        """Raises PolicyRefusal if an answer is too large or one too many for a day."""
        if _size(content) > policy.maximum_upload_bytes:
            raise PolicyRefusal("upload-too-large")
        today = self.after(now - timedelta(days=1))
        if sum(entry["kind"] != REFUSAL for entry in today) >= policy.answers_per_day:
            raise PolicyRefusal("too-many-answers-today")

    def record(
        self,
        kind: str,
        round: int,
        content: RecordDict,
        now: datetime,
        *,
        read: RecordDict | None = None,
        changes: Sequence[float] = (),
        budget: Mapping[str, float] | None = None,
        work: Work | None = None,
    ) -> None:
        """Records a message that is about to leave; nothing leaves unrecorded.

        Args:
            kind: "probe", "update", "scales" or `REFUSAL`.
            round: Number of the round; 0 for none.
            content: The message.
            now: The time.
            read: A coded message with the numbers that its receiver reads, whose shapes and lengths
                are recorded; None if it has them itself.
            changes: Euclidean length of the way from the start to each network in the message.
            budget: State of the privacy budget once the message has left, as `Budget.spent` gives
                it; None without a budget.
            work: The work that the request has asked for; None for a refusal.
        """
        numbers = read or content
        entry = {
            "time": now.isoformat(),
            "kind": kind,
            "round": round,
            "bytes": _size(content),
            "fields": {
                name: value
                for fields in content.config_records.values()
                for name, value in fields.items()
            },
            "tensors": {
                record: {name: list(array.shape) for name, array in arrays.items()}
                for record, arrays in numbers.array_records.items()
            },
            "norms": {name: _finite(norm) for name, norm in _norms(numbers).items()},
            "changes": [_finite(change) for change in changes],
            **({"budget": dict(budget)} if budget else {}),
            **({"work": asdict(work)} if work else {}),
            "numbers": {
                name: value
                for metrics in content.metric_records.values()
                for name, value in metrics.items()
            },
        }
        with self.path.open("ab+") as file:
            file.seek(max(file.tell() - 1, 0))
            torn = file.read() not in (b"", b"\n")
            # One write, on a line of its own even where a crash has torn the one before.
            file.write((b"\n" if torn else b"") + json.dumps(entry).encode() + b"\n")
            file.flush()
            fsync(file.fileno())


def utc_now() -> datetime:
    """The site's clock."""
    return datetime.now(UTC)


def norm_texts(entry: Mapping[str, Any]) -> list[str]:
    """The lengths of the changes in an entry, as text; entries of older versions have none."""
    norms = entry.get("changes") or list(entry.get("norms", {}).values())
    return ["not finite" if norm is None else f"{norm:.4g}" for norm in norms]


def budget_text(budget: Mapping[str, float] | None) -> str:
    """The spent part of a privacy budget, as an entry has it, as text; "" without a budget."""
    return f"ε {budget['spent']:.3g} of {budget['epsilon']:g}" if budget else ""


def work_texts(work: Mapping[str, Any] | None) -> list[str]:
    """The work behind an entry, as short texts; entries of older versions have none."""
    if not work:
        return []
    counts = {"probes": "episodes", "networks": "networks", "steps": "steps"}
    texts = [f"{name} {work[key]}" for name, key in counts.items() if work[key]]
    batch = [f"examples a step {work['examples']}"] if work["examples"] else []
    return [*texts, *batch, f"anchor {work['anchor']}"]


def _norms(content: RecordDict) -> dict[str, float]:
    """Euclidean length of each vector: a row of an array, or all tensors of a record together."""
    import numpy as np

    found = {}
    for record, arrays in content.array_records.items():
        if record != ARRAYS:
            found[record] = _norm(arrays)
            continue
        for name, array in arrays.items():
            rows = np.atleast_2d(array.numpy().astype(np.float64))
            found |= {f"{name}.{i}": float(np.linalg.norm(row)) for i, row in enumerate(rows)}
    return found


def _norm(arrays: ArrayRecord) -> float:
    """Euclidean length of all tensors together."""
    import numpy as np

    return math.hypot(
        *(float(np.linalg.norm(a.numpy().astype(np.float64))) for a in arrays.values())
    )


def _parsed(lines: bytes) -> list[dict[str, Any]]:
    """The entries in whole lines; a torn line lacks its end."""
    return [json.loads(line) for line in lines.split(b"\n") if line.endswith(b"}")]


def _finite(value: float) -> float | None:
    # JSON has numbers for finite values alone.
    return value if math.isfinite(value) else None


def array_bytes(content: RecordDict) -> int:
    """Bytes of all tensors in a message."""
    return sum(arrays.count_bytes() for arrays in content.array_records.values())


def latest_refusal(entries: Sequence[Mapping[str, Any]]) -> Reason | None:
    """The reason of the latest message if it is a refusal; None where the site has answered."""
    if not entries or entries[-1]["kind"] != REFUSAL:
        return None
    return reason_of(str(entries[-1]["fields"].get("code", "")))


def _size(content: RecordDict) -> int:
    return sum(record.count_bytes() for record in content.values())
