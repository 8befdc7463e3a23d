"""Damage in the folder of releases is named in one sentence, and a gate can go on from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from f2l_fed.errors import ReleaseError
from f2l_fed.generator.serialization import save_matrix
from server.federation.release import Release
from server.federation.release_registry import ReleaseRegistry


@pytest.fixture
def registry(tmp_path: Path) -> ReleaseRegistry:
    """One promoted release, fitted on two sites with two records each."""
    release = Release(
        id="00001", state="promoted", parent="", snapshot=1, sites=("a", "b"), parameters=3
    )
    (tmp_path / "00001").mkdir()
    (tmp_path / "00001/release.json").write_text(json.dumps(dataclasses.asdict(release)))
    save_matrix(torch.arange(12.0).reshape(4, 3), tmp_path / "00001/expected.safetensors")
    (tmp_path / "promoted").write_text("00001\n")
    return ReleaseRegistry(tmp_path)


def test_what_a_release_expects_is_by_site(registry: ReleaseRegistry) -> None:
    expected = registry.expected("00001")
    assert expected.shape == (2, 2, 3)
    assert torch.equal(expected.flatten(), torch.arange(12.0))


@pytest.mark.parametrize("size", [0, 5, 90])
def test_a_truncated_file_of_what_it_expects_is_named(registry: ReleaseRegistry, size: int) -> None:
    path = registry.path / "00001/expected.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ReleaseError, match=r"expected\.safetensors: can't read.*roll back"):
        registry.expected("00001")


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_what_was_expected_of_other_sites_is_named(registry: ReleaseRegistry, rows: int) -> None:
    save_matrix(torch.ones(rows, 3), registry.path / "00001/expected.safetensors")
    with pytest.raises(ReleaseError, match=f"expected.safetensors.*got {rows} rows for 2 sites"):
        registry.expected("00001")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"../x", b"\0\0\0\0\0"])
def test_a_damaged_pointer_is_named_and_its_remedy_helps(
    registry: ReleaseRegistry, content: bytes
) -> None:
    pointer = registry.path / "promoted"
    pointer.write_bytes(content)
    for ask in (registry.promoted, lambda: registry.read("00001"), registry.rollback):
        with pytest.raises(ReleaseError, match=r"promoted: the file .* is damaged.*Delete it"):
            ask()
    pointer.unlink()
    promoted = registry.promoted()
    assert promoted is not None
    assert promoted.id == "00001"


def test_a_release_is_not_promoted_over_another_than_its_parent(registry: ReleaseRegistry) -> None:
    late = dataclasses.replace(registry.read("00001"), id="00002", state="candidate", parent="")
    (registry.path / "00002").mkdir()
    (registry.path / "00002/release.json").write_text(json.dumps(dataclasses.asdict(late)))
    with pytest.raises(ReleaseError, match=r"another release meanwhile.*none, got 00001"):
        registry.promote("00002", judged=late)
    promoted = registry.promoted()
    assert promoted is not None
    assert promoted.id == "00001"
