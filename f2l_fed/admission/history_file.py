"""The file of an admission history: safetensors, with a JSON value as its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from f2l_fed.admission.history import Exclusion, History
from f2l_fed.admission.site_statistics import SiteStatistics
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import AdmissionError

_FORMAT = 3

# Format 3's keys are older than the fields' names: votes are statistics, owners and sources the
# submissions of signatures and directions, doubted is excluded, and fresh is unreviewed.
_STATISTICS = "votes."


def load_history(path: Path) -> History:
    """Reads a history; an empty one if there is no file.

    Raises:
        AdmissionError: If the file is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return History()
    return from_bytes(data, where=str(path))


def save_history(path: Path, history: History) -> None:
    """Writes a history durably."""
    write_atomically(path, to_bytes(history))


def to_bytes(history: History) -> bytes:
    """Writes a history as the bytes of a safetensors file."""
    statistics = history.statistics.items()
    about = {
        "format": _FORMAT,
        "votes": {kind: [some.names, some.sites, some.parents] for kind, some in statistics},
        "owners": history.signature_ids,
        "sources": history.direction_ids,
        "doubted": history.excluded,
        "fresh": sorted(history.unreviewed),
    }
    tensors = {"signatures": history.signatures, "directions": history.directions}
    tensors |= {f"{_STATISTICS}{kind}": some.values for kind, some in statistics}
    return save(
        {name: value.contiguous() for name, value in tensors.items()},
        {"admission": json.dumps(about, sort_keys=True)},
    )


def from_bytes(data: bytes, *, where: str = "") -> History:
    """Reads a history from bytes that `to_bytes` wrote.

    Args:
        data: The bytes.
        where: Their file, for the error.

    Raises:
        AdmissionError: If they are damaged or of another format.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["admission"])
        tensors = load(data)
        if about["format"] != _FORMAT:
            raise _damaged(where, f"format {about['format']}")
        owners, sources = list(_ids(about["owners"])), list(_ids(about["sources"]))
        sizes = {"signatures": len(owners), "directions": len(sources)}
        if any(len(tensors[name]) != size for name, size in sizes.items()) or any(
            tensors[f"{_STATISTICS}{kind}"].shape != (len(parents), len(names), 3)
            for kind, (names, _, parents) in about["votes"].items()
        ):
            raise _damaged(where, "parts that don't fit together")
        return History(
            statistics={
                str(kind): SiteStatistics(
                    names=tuple(names),
                    sites=tuple(sites),
                    parents=tuple(parents),
                    values=tensors[f"{_STATISTICS}{kind}"],
                )
                for kind, (names, sites, parents) in about["votes"].items()
            },
            signature_ids=owners,
            signatures=tensors["signatures"],
            direction_ids=sources,
            directions=tensors["directions"],
            excluded={str(s): Exclusion(int(n), str(w)) for s, (n, w) in about["doubted"].items()},
            unreviewed=_ids(about.get("fresh", ())),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(where, type(error).__name__) from error


def _ids(read: Iterable[Sequence[Any]]) -> Iterable[SubmissionId]:
    return (SubmissionId(str(site), int(number), str(parent)) for site, number, parent in read)


def _damaged(where: str, got: str) -> AdmissionError:
    return AdmissionError(
        "the admission history can't be read",
        where=where,
        expected="a file that this version wrote",
        got=got,
        remedy="Restore it from a backup, or delete it: it is rebuilt from the zoo, except for "
        "the exclusions that reviews have found.",
    )
