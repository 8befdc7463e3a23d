"""The spool keeps what a run needs of its sites, and lets go of one or of all."""

from __future__ import annotations

import torch

from server.rounds.run_cache import RunCache, digest_of


def filled(root):
    spool = RunCache.beside(root)
    for site in ("north", "../south"):
        spool.keep_context("anchor", site, torch.ones(2, 3))
        spool.keep_offer(4, site, ({"prior": torch.ones(3)}, {"prior": torch.zeros(3)}))
    return spool


def test_what_is_kept_comes_back_and_an_offer_only_once(tmp_path):
    spool = filled(tmp_path)
    assert torch.equal(spool.contexts("anchor", ("north",))["north"], torch.ones(2, 3))
    offer = spool.take_offer(4, "north")
    assert [starts["prior"].sum() for starts in offer] == [3, 0]
    assert spool.take_offer(4, "north") is None


def test_names_never_become_paths(tmp_path):
    filled(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"spool"}


def test_a_forgotten_site_leaves_no_file_and_others_stay(tmp_path):
    spool = filled(tmp_path)
    before = set(spool.folder.rglob("*.safetensors"))
    spool.screened.mkdir()
    left = [spool.folder / "anchor" / f"{digest_of('north')}.4711.draft"]
    left += [spool.screened / f"{digest_of('north')}-2.{end}" for end in ("4711.draft", "st")]
    for path in left:
        path.write_bytes(b"half of it")
    spool.forget("north")
    assert not any(path.exists() for path in left)
    assert len(before) - len(set(spool.folder.rglob("*.safetensors"))) == 2
    assert not spool.has_context("anchor", "north")
    assert spool.take_offer(4, "north") is None
    assert spool.has_context("anchor", "../south")
    assert spool.take_offer(4, "../south") is not None


def test_a_cleared_spool_is_gone(tmp_path):
    spool = filled(tmp_path)
    spool.clear()
    assert not spool.folder.exists()


def test_a_torn_context_is_none_and_is_asked_for_again(tmp_path):
    spool = filled(tmp_path)
    for path in (spool.folder / "anchor").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert not spool.has_context("anchor", "north")
    spool.keep_context("anchor", "north", torch.ones(2, 3))
    assert spool.has_context("anchor", "north")
    assert not spool.has_context("anchor", "../south")
