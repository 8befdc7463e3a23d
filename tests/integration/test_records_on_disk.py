"""A retraining whose records lie on a disk makes the release of one in memory, and leaves no file.

The first release is fitted from scratch, the second refines it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from f2l_fed.config import load_config
from f2l_fed.matrices import blocks
from f2l_fed.zoo import NewRecord
from server.federation.folder import Federation
from server.generator.gate import objections
from server.generator.retrain import retrain
from tests.support.small import rng
from tests.support.small_federation import ANY_RELEASE, SETTINGS

SITES = 12


def federation_at(root: Path, *settings: str) -> Federation:
    """A federation without rounds, whose zoo gets records by `answer`."""
    shape = ("target.input_shape=[1, 8, 8]", "target.classes=5", "probe.anchors=1")
    config = load_config(None, [*SETTINGS, *ANY_RELEASE, *shape, *settings])
    return Federation.create(root, config)


def answer(federation: Federation, round: int, parent: str) -> int:
    """Two networks of each site, which their contexts tell something of; the last commit."""
    draws, size = rng(round), federation.target.layout.size
    for index in range(SITES):
        task = 0.05 * torch.randn(size, generator=draws)
        pairs = []
        for episode in range(2):
            noise = 0.02 * torch.randn(2, size, generator=draws)
            pairs.append(
                NewRecord(
                    key=f"{round}/site-{index:02d}/{episode}",
                    site=f"site-{index:02d}",
                    round=round,
                    parent=parent,
                    weights=(federation.anchor(None) + 2 * task + noise[0]).numpy(),
                    context=(task + noise[1]).numpy(),
                    metrics={},
                )
            )
        federation.zoo.append(pairs)
    return federation.zoo.snapshot().commit


def two_releases(root: Path, *settings: str) -> list[dict[str, torch.Tensor]]:
    """All tensors of two releases."""
    federation, parent, found = federation_at(root, *settings), "", []
    for round, id in enumerate(("00001", "00002"), start=1):
        retrain(federation.root, id, answer(federation, round, parent))
        assert objections(federation, federation.releases.read(id)) == ()
        federation.releases.promote(id)
        files = ("generator", "expected")
        for file in files:
            found.append(load_file(federation.releases.path / id / f"{file}.safetensors"))
        parent = id
    assert not list((root / "training").glob("*/*"))
    return found


def test_where_records_lie_changes_nothing(tmp_path, monkeypatch):
    in_memory = two_releases(tmp_path / "memory")
    on_disk = two_releases(tmp_path / "disk", "ray.memory_mb=0")
    assert any(bool(tensors["prior.common.right"].any()) for tensors in in_memory[::2])
    for here, there in zip(in_memory, on_disk, strict=True):
        assert here.keys() == there.keys()
        for name, tensor in here.items():
            assert torch.equal(tensor, there[name]), name
    # In blocks of a few columns or rows sums are rounded otherwise.
    monkeypatch.setattr(blocks, "_BLOCK", 10_000)
    narrow = two_releases(tmp_path / "narrow", "ray.memory_mb=0")
    for here, there in zip(in_memory[1::2], narrow[1::2], strict=True):
        torch.testing.assert_close(here["w"], there["w"], rtol=0, atol=2e-3)


def test_a_full_disk_ends_the_retraining_and_leaves_no_file(tmp_path, monkeypatch):
    federation = federation_at(tmp_path, "ray.memory_mb=0")
    commit, refused = answer(federation, 1, ""), []

    def full(handle: int, start: int, size: int) -> None:
        refused.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        retrain(federation.root, "00001", commit)
    assert refused
    assert not list((tmp_path / "training").glob("*"))
    assert federation.releases.ids() == []
    monkeypatch.undo()
    assert retrain(federation.root, "00001", commit).sites
