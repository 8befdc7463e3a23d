"""The run cache keeps what a run needs of its sites, and deletes one site or all."""

from __future__ import annotations

import torch

from server.federation.file_names import site_digest
from server.rounds.run_cache import RunCache


def filled(root):
    cache = RunCache.beside(root)
    for site in ("north", "../south"):
        cache.keep_context("anchor", site, torch.ones(2, 3))
        cache.keep_candidates(4, site, ({"prior": torch.ones(3)}, {"prior": torch.zeros(3)}))
    return cache


def test_contexts_come_back_and_candidates_only_once(tmp_path):
    cache = filled(tmp_path)
    assert torch.equal(cache.contexts("anchor", ("north",))["north"], torch.ones(2, 3))
    kept = cache.take_candidates(4, "north")
    assert [starts["prior"].sum() for starts in kept] == [3, 0]
    assert cache.take_candidates(4, "north") is None


def test_names_never_become_paths(tmp_path):
    filled(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"spool"}


def test_a_forgotten_site_leaves_no_file_and_others_stay(tmp_path):
    cache = filled(tmp_path)
    before = set(cache.folder.rglob("*.safetensors"))
    cache.screened.mkdir()
    left = [cache.folder / "anchor" / f"{site_digest('north')}.4711.draft"]
    left += [cache.screened / f"{site_digest('north')}-2.{end}" for end in ("4711.draft", "st")]
    for path in left:
        path.write_bytes(b"half of it")
    cache.forget("north")
    assert not any(path.exists() for path in left)
    assert len(before) - len(set(cache.folder.rglob("*.safetensors"))) == 2
    assert not cache.has_context("anchor", "north")
    assert cache.take_candidates(4, "north") is None
    assert cache.has_context("anchor", "../south")
    assert cache.take_candidates(4, "../south") is not None


def test_a_cleared_cache_is_gone(tmp_path):
    cache = filled(tmp_path)
    cache.clear()
    assert not cache.folder.exists()


def test_a_torn_context_does_not_count_and_is_replaced(tmp_path):
    cache = filled(tmp_path)
    for path in (cache.folder / "anchor").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert not cache.has_context("anchor", "north")
    cache.keep_context("anchor", "north", torch.ones(2, 3))
    assert cache.has_context("anchor", "north")
    assert not cache.has_context("anchor", "../south")
