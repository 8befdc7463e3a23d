"""The file of what admission remembers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from f2l_fed.admission.history import Exclusion, History
from f2l_fed.admission.robust_statistics import SiteStatistics
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.errors import AdmissionError

_FORMAT, _VOTES = 3, "votes."


def load_history(path: Path) -> History:
    """Reads a memory; an empty one if there is no file.

    Raises:
        AdmissionError: If the file is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return History()
    return from_bytes(data, where=str(path))


def save_history(path: Path, memory: History) -> None:
    """Writes a memory durably."""
    write_atomically(path, to_bytes(memory))


def to_bytes(memory: History) -> bytes:
    """A memory as a safetensors file."""
    about = {
        "format": _FORMAT,
        "votes": {kind: [v.names, v.sites, v.parents] for kind, v in memory.votes.items()},
        "owners": memory.owners,
        "sources": memory.sources,
        "doubted": memory.doubted,
        "fresh": sorted(memory.fresh),
    }
    tensors = {"signatures": memory.signatures, "directions": memory.directions}
    tensors |= {f"{_VOTES}{kind}": votes.values for kind, votes in memory.votes.items()}
    return save(
        {name: value.contiguous() for name, value in tensors.items()},
        {"admission": json.dumps(about, sort_keys=True)},
    )


def from_bytes(data: bytes, *, where: str = "") -> History:
    """Reads what `to_bytes` wrote.

    Raises:
        AdmissionError: If it isn't that.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["admission"])
        tensors = load(data)
        if about["format"] != _FORMAT:
            raise _damaged(where, f"format {about['format']}")
        found = History(
            votes={
                str(kind): SiteStatistics(
                    names=tuple(names),
                    sites=tuple(sites),
                    parents=tuple(parents),
                    values=tensors[f"{_VOTES}{kind}"],
                )
                for kind, (names, sites, parents) in about["votes"].items()
            },
            owners=_origins(about["owners"]),
            signatures=tensors["signatures"],
            sources=_origins(about["sources"]),
            directions=tensors["directions"],
            doubted={str(s): Exclusion(int(n), str(w)) for s, (n, w) in about["doubted"].items()},
            fresh=frozenset(
                SubmissionId(str(s), int(r), str(p)) for s, r, p in about.get("fresh", ())
            ),
        )
        sound = len(found.owners) == len(found.signatures)
        sound = sound and len(found.sources) == len(found.directions)
        sound = sound and all(
            votes.values.shape == (len(votes.parents), len(votes.names), 3)
            and len(votes.sites) == len(votes.parents)
            for votes in found.votes.values()
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(where, type(error).__name__) from error
    if not sound:
        raise _damaged(where, "parts that don't fit together")
    return found


def _origins(read: Iterable[Sequence[Any]]) -> tuple[SubmissionId, ...]:
    return tuple(SubmissionId(str(site), int(number), str(parent)) for site, number, parent in read)


def _damaged(where: str, got: str) -> AdmissionError:
    return AdmissionError(
        "the memory of admission can't be read",
        where=where,
        expected="a file that this version wrote",
        got=got,
        remedy="Restore it from a backup, or delete it: it is built anew from the zoo, "
        "but for what second looks have found.",
    )
