"""What may leave a site, decided and recorded at the site, whatever the server asks."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from f2l_fed.errors import PolicyRefusal
from f2l_fed.finetune import Recipe
from f2l_fed.rules import positive, require
from f2l_fed.wire import NUMBERS

REFUSAL = "refusal"
"""Kind of the entries that count as no answer."""

ANSWERS = ("probe", "update")
"""Kinds of answers that hold parameters."""

_HASH = re.compile(r"[0-9a-f]{64}")

_BLOCK_BYTES = 2**16

BUILT_IN_TARGETS = ("mlp", "cnn-xs", "cnn-s", "cnn-m")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Limits that only the site's operator can change.

    Args:
        targets: Networks the site is willing to build, by name and separated by spaces; one
            written ``module:factory`` runs that code here.
        numbers: Numbers that may leave, separated by spaces.
        minimum_examples: Fewest training examples with which the site takes part.
        maximum_steps: Most gradient steps in one task.
        maximum_lr: Highest learning rate.
        maximum_upload_bytes: Largest answer.
        answers_per_day: Most answers in 24 hours.
        rounds_per_day: Most rounds with an update in 24 hours.
        answers: Kinds of answers that may leave, separated by spaces: "probe" holds the change
            that a few steps from a common start make to the parameters, "update" the fine-tuned
            parameters and probes again.
        apps: SHA-256 of the Flower apps on whose behalf the site answers, separated by spaces;
            "" for any, since what the server sends is never run here.
    """

    targets: str = " ".join(BUILT_IN_TARGETS)
    numbers: str = " ".join(NUMBERS)
    minimum_examples: int = 10
    maximum_steps: int = 1000
    maximum_lr: float = 1.0
    maximum_upload_bytes: int = 2**28
    answers_per_day: int = 1000
    rounds_per_day: int = 100
    answers: str = " ".join(ANSWERS)
    apps: str = ""

    def __post_init__(self) -> None:
        positive(
            self,
            "minimum_examples",
            "maximum_steps",
            "maximum_lr",
            "maximum_upload_bytes",
            "answers_per_day",
            "rounds_per_day",
        )
        kinds = set(self.answers.split()) <= set(ANSWERS)
        require(kinds, self, "answers", f"some of {' '.join(ANSWERS)}")
        hashes = all(_HASH.fullmatch(app) for app in self.apps.split())
        require(hashes, self, "apps", "64 hexadecimal digits each")
        known = set(self.numbers.split()) <= set(NUMBERS)
        require(known, self, "numbers", f"some of {' '.join(NUMBERS)}")


def allow_request(policy: PolicyConfig, target: str, recipe: Recipe, examples: int) -> None:
    """Raises PolicyRefusal if the site does not do what is asked; its text is a code."""
    if target not in policy.targets.split():
        raise PolicyRefusal("target-not-allowed")
    if recipe.steps > policy.maximum_steps:
        raise PolicyRefusal("too-many-steps")
    if not recipe.lr <= policy.maximum_lr:
        raise PolicyRefusal("learning-rate-too-high")
    if examples < policy.minimum_examples:
        raise PolicyRefusal("too-few-examples")


def allow_answer(policy: PolicyConfig, kind: str, app: str) -> None:
    """Raises PolicyRefusal if such an answer may not leave, or not on behalf of this app.

    Args:
        policy: The site's.
        kind: One of `ANSWERS`.
        app: SHA-256 of the Flower app that asks; "" where it is not known.
    """
    if policy.apps and app not in policy.apps.split():
        raise PolicyRefusal("app-not-allowed")
    if kind not in policy.answers.split():
        raise PolicyRefusal("answer-not-allowed")


def allowed_numbers(policy: PolicyConfig, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that may leave."""
    allowed = policy.numbers.split()
    return {name: value for name, value in numbers.items() if name in allowed}


@dataclass(frozen=True, slots=True)
class SentLog:
    """The record of everything that left, one JSON object a line.

    Args:
        path: The file.
    """

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first, without torn lines: what they began to say never left."""
        if not self.path.exists():
            return []
        return _parsed(self.path.read_bytes())

    def after(self, time: datetime) -> list[dict[str, Any]]:
        """Entries later than a time, oldest first; as much as that takes is read, from the end."""
        found: list[dict[str, Any]] = []
        if not self.path.exists():
            return found
        with self.path.open("rb") as file:
            begin, rest = file.seek(0, os.SEEK_END), b""
            while begin:
                end, begin = begin, max(begin - _BLOCK_BYTES, 0)
                file.seek(begin)
                block = file.read(end - begin) + rest
                # The block's first line may have begun before it.
                rest, whole = block.split(b"\n", 1) if begin and b"\n" in block else (block, b"")
                entries = _parsed(whole if begin else block)
                recent = [entry for entry in entries if entry["time"] > time.isoformat()]
                if entries and not recent:
                    break
                found[:0] = recent
        return found

    def allow_round(self, policy: PolicyConfig, number: int, now: datetime) -> None:
        """Raises PolicyRefusal if the site has taken part in enough rounds for today."""
        today = self.after(now - timedelta(days=1))
        rounds = {entry["round"] for entry in today if entry["kind"] == "update"}
        if number not in rounds and len(rounds) >= policy.rounds_per_day:
            raise PolicyRefusal("too-many-rounds-today")

    def allow(self, policy: PolicyConfig, content: RecordDict, now: datetime) -> None:
        """Raises PolicyRefusal if an answer is too large or comes too often."""
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
        changes: Sequence[float] = (),
        budget: Mapping[str, float] | None = None,
    ) -> None:
        """Writes down what is about to leave; nothing leaves unwritten.

        Args:
            kind: "probe", "update" or `REFUSAL`.
            round: Its number; 0 for none.
            content: The answer.
            now: The time.
            changes: Euclidean length of the way from the start to each network in the answer.
            budget: Where there is one, how much of it is spent once this has left.
        """
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
                for record, arrays in content.array_records.items()
            },
            "norms": {
                record: _finite(_norm(arrays)) for record, arrays in content.array_records.items()
            },
            "changes": [_finite(change) for change in changes],
            **({"budget": dict(budget)} if budget else {}),
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
            os.fsync(file.fileno())


def utc_now() -> datetime:
    """The clock of the audit log."""
    return datetime.now(UTC)


def norms_of(entry: Mapping[str, Any]) -> list[str]:
    """The lengths of the changes in an entry of the audit log, as text; older ones do not say."""
    found = entry.get("changes") or list(entry.get("norms", {}).values())
    return ["not finite" if norm is None else f"{norm:.4g}" for norm in found]


def spent_of(budget: Mapping[str, float] | None) -> str:
    """The ε that is spent, of how much, as the audit log has it; "" without a budget."""
    return f"ε {budget['spent']:.3g} of {budget['epsilon']:g}" if budget else ""


def _norm(arrays: ArrayRecord) -> float:
    """Euclidean length of all tensors together."""
    return math.hypot(
        *(float(np.linalg.norm(a.numpy().astype(np.float64))) for a in arrays.values())
    )


def _parsed(lines: bytes) -> list[dict[str, Any]]:
    """The entries in whole lines; torn ones have no end."""
    return [json.loads(line) for line in lines.split(b"\n") if line.endswith(b"}")]


def _finite(value: float) -> float | None:
    # JSON has no other numbers.
    return value if math.isfinite(value) else None


def _size(content: RecordDict) -> int:
    return sum(record.count_bytes() for record in content.values())
