"""A dishonest site's coded answers: no bomb is unpacked, nothing that isn't finite is kept."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from f2l_fed.wire import coding
from f2l_fed.wire.tensors import bytes_of
from server.federation.body_updates import BodyUpdates
from server.rounds.journal import Journal
from tests.attacks.peers.dishonest_site import Tampering, dishonest_round
from tests.support.small_federation import prepared, small_federation

BODY = ("target.adapt=head", "episodes.first=6", "episodes.steps=4", "head.pairs=3")
SHARED = ("target.adapt=head", "split.dirichlet_alpha=0.3", "shared.early_rounds=2")
HONEST = 3
_HEAD = struct.Struct("<BII")


def recoded(name: str, change: Callable[[bytes], bytes]) -> Tampering:
    """An answer in which the bytes of one coded array are others."""

    def tamper(reply: RecordDict) -> RecordDict:
        data = bytes_of(reply["arrays"][name], name)
        assert data is not None
        array = Array(np.frombuffer(change(bytes(data)), np.uint8))
        return RecordDict({**reply, "arrays": ArrayRecord({**reply["arrays"], name: array})})

    return tamper


def saying(rows: int | None = None, width: int | None = None) -> Callable[[bytes], bytes]:
    """The same codes under a head with other sizes."""

    def change(data: bytes) -> bytes:
        version, own_rows, own_width = _HEAD.unpack_from(data)
        return _HEAD.pack(version, rows or own_rows, width or own_width) + data[_HEAD.size :]

    return change


def filled(exponent: int, byte: bytes) -> Callable[[bytes], bytes]:
    """Codes of one byte alone, with one step everywhere, as many as there were."""

    def change(data: bytes) -> bytes:
        version, rows, width = _HEAD.unpack_from(data)
        steps = -(-width // 64)
        size = len(zlib.decompress(data[_HEAD.size :])) - steps
        packed = struct.pack("b", exponent) * steps + byte * size
        return _HEAD.pack(version, rows, width) + zlib.compress(packed)

    return change


def bomb(data: bytes) -> bytes:
    return data[: _HEAD.size] + zlib.compress(bytes(10**8))


ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "a bomb": bomb,
    "a bomb that says so": lambda data: saying(2**31, 2**31)(bomb(data)),
    "many rows": saying(rows=2**32 - 1),
    "one row more": lambda data: saying(rows=_HEAD.unpack_from(data)[1] + 1)(data),
    "wide rows": saying(width=2**32 - 1),
    "one number more": lambda data: saying(width=_HEAD.unpack_from(data)[2] + 1)(data),
    "a second stream": lambda data: data + zlib.compress(b"x"),
    "cut off": lambda data: data[:-3],
    "no bytes": lambda _: b"",
    "another coding": lambda data: b"\x02" + data[1:],
    "steps beyond float32": filled(127, b"\xff"),
    "steps of nothing": filled(-128, b"\xff"),
}
"""The codes of an honest site, changed into others that have to be refused."""


@pytest.mark.parametrize(
    ("settings", "scenario", "names"),
    [(BODY, "few-shot", ("weights", "body")), (SHARED, "dirichlet", ("weights",))],
    ids=["a body", "a shared network"],
)
def test_every_attack_is_garbage_and_the_others_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    scenario: str,
    names: tuple[str, ...],
) -> None:
    attacks = [recoded(name, change) for name in names for change in ATTACKS.values()]
    unpacked: list[int] = []
    real = zlib.decompressobj

    class Counted:
        """The compressor's own object, which counts what it gives out."""

        def __init__(self) -> None:
            self._press = real()

        def decompress(self, data: bytes, most: int) -> bytes:
            given = self._press.decompress(data, most)
            unpacked.append(len(given))
            return given

        def __getattr__(self, name: str) -> object:
            return getattr(self._press, name)

    monkeypatch.setattr(coding.zlib, "decompressobj", Counted)
    federation, _ = small_federation(
        tmp_path / "out",
        sites=len(attacks) + HONEST,
        settings=("first.steps=1", "flow.steps=5", "round.quorum=0.05", *settings),
        scenario=scenario,
    )
    files = sorted((tmp_path / "out/sites").glob("*/site.toml"))
    dishonest_round(federation, files, tasks=dict(enumerate(attacks, 1)))
    codes = {line.site: line.code for line in Journal.of(federation.root / "rounds", 1).read()}
    named = [f"{name}: {attack}" for name in names for attack in ATTACKS]
    found = {name: codes[file.parent.name] for name, file in zip(named, files, strict=False)}
    assert found == dict.fromkeys(named, "garbage")
    honest = [codes[file.parent.name] for file in files[len(attacks) :]]
    assert honest == ["accepted"] * HONEST
    layouts = [federation.target.layout, federation.body_layout]
    largest = max(layout.size for layout in layouts if layout)
    assert max(unpacked) <= 2 * (federation.config.pairs + 1) * largest + largest // 64 + 2


@pytest.mark.parametrize("byte", [b"\xff", b"\xfe", b"\x7f"])
def test_the_largest_numbers_that_can_be_coded_are_screened_as_numbers(
    tmp_path: Path, byte: bytes
) -> None:
    federation, files = prepared(tmp_path / "out", "round.quorum=0.5", *BODY, sites=4)
    large = filled(100, byte)
    lies = {1: recoded("weights", large), 2: recoded("body", large)}
    state = dishonest_round(federation, files, tasks=lies)
    assert "site-000" not in state.accepted
    assert set(state.accepted) >= {"site-002", "site-003"}
    snapshot = federation.zoo.snapshot()
    weights = torch.from_numpy(snapshot.weights(snapshot.records()))
    assert bool(weights.isfinite().all())
    assert float(weights.abs().max()) < 1e6
    release = federation.releases.promoted()
    if release is not None:
        # Whatever a body was, the next one is finite and near to the one before.
        first, following = federation.anchor(None), federation.next_anchor(release)
        assert float((following - first).norm()) <= 3 * float(first.norm()) + 3
    for kept in BodyUpdates.of(federation.root).read(""):
        assert bool(kept.body.isfinite().all())
