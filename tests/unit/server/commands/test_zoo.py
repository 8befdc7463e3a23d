"""f2l-admin zoo, on folders and on object stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from f2l_fed.errors import F2LError, ReleaseError, UsageError, ZooError
from f2l_fed.zoo import Zoo
from server.commands import zoo as commands
from server.federation.release import Release
from tests.unit.f2l_fed.zoo.samples import CONTEXT, keys_of, new_record, new_zoo

KEPT = (".json", ".safetensors")


def call(*words: object) -> str:
    """What a command prints; its error as it was raised."""
    done = CliRunner().invoke(commands.app, list(map(str, words)))
    if isinstance(done.exception, F2LError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def filled(place: Path | str) -> Path | str:
    zoo = new_zoo(place)
    zoo.append(
        [new_record("0/a/0", metrics={"accuracy": 0.5}), new_record("0/b/0", metrics={"loss": 1})]
    )
    zoo.append([new_record("1/a/0", parent="00001", metrics={"accuracy": 0.75})])
    zoo.append([new_record("1/b/0", status="quarantined", reason="norm")])
    return place


def write_release(folder: Path, id: str, **fields: object) -> None:
    (folder / id).mkdir(parents=True)
    state = {"id": id, "state": "candidate", "parent": "", "snapshot": 1, **fields}
    Release(**state)  # type: ignore[arg-type]
    (folder / id / "release.json").write_text(
        json.dumps({"sites": [], "records": [], "reasons": [], **state})
    )


def listed(*words: object) -> list[str]:
    return [record["key"] for record in json.loads(call("list", *words, "--json"))]


def test_list_selects_by_site_round_and_metric(filled: Path | str):
    assert listed(filled) == ["0/a/0", "0/b/0", "1/a/0"]
    assert listed(filled, "--site", "a", "--round", 0) == ["0/a/0"]
    assert listed(filled, "--parent", "00001") == ["1/a/0"]
    assert listed(filled, "--metric", "accuracy:0.6:1") == ["1/a/0"]
    assert listed(filled, "--latest") == ["0/b/0", "1/a/0"]
    assert listed(filled, "--quarantined") == ["1/b/0"]
    assert listed(filled, "--commit", 1) == ["0/a/0", "0/b/0"]
    assert "accuracy=0.75" in call("list", filled)


def test_stats_verify_reindex_and_compact(filled: Path | str):
    assert json.loads(call("stats", filled, "--json"))["records"] == 4
    assert call("verify", filled) == "nothing is wrong\n"
    assert call("reindex", filled) == "4 records indexed\n"
    removed = json.loads(call("compact", filled, "--json"))["files"]
    # An object store keeps for an hour what has been merged.
    assert removed == (0 if isinstance(filled, str) else 3)
    assert call("compact", filled) == "0 files removed, 0 bytes\n"
    assert call("verify", filled) == "nothing is wrong\n"


def test_texts_of_a_foreign_zoo_reach_no_terminal_as_commands(path: Path):
    zoo = new_zoo(path)
    zoo.append([new_record("1/b/0", status="quarantined", reason="norm \x1b[2J\x07 of b")])
    assert "\x1b" in json.loads(call("list", path, "--quarantined", "--json"))[0]["reason"]
    for words in (("list", path, "--quarantined"), ("stats", path)):
        assert all(c.isprintable() or c == "\n" for c in call(*words))


def test_an_exported_network_is_imported_once(filled: Path | str, tmp_path: Path):
    out = tmp_path / "out"
    assert call("export", filled, out, "--parent", "00001", "--context") == f"1 network in {out}\n"
    (file,) = out.iterdir()
    assert call("import", filled, file, "--site", "c", "--round", 2) == "commit 4\n"
    assert call("import", filled, file, "--site", "c", "--round", 2) == "the zoo has it already\n"
    with pytest.raises(UsageError, match="nothing to export"):
        call("export", filled, out, "--site", "nobody")


def test_a_copy_is_a_whole_zoo_and_follows_the_first(filled: Path | str, tmp_path: Path):
    copy = tmp_path / "copy"
    assert call("copy", filled, copy) == f"{copy} has commit 3\n"
    zoo, second = Zoo.open(filled), Zoo.open(copy)
    first_weights = zoo.snapshot().weights(zoo.snapshot().records())
    np.testing.assert_array_equal(
        second.snapshot().weights(second.snapshot().records()), first_weights
    )
    zoo.append([new_record("2/c/0")])
    zoo.forget("a")
    # The tombstone is followed by the merge that moves the rows of b.
    assert call("copy", filled, copy) == f"{copy} has commit {zoo.snapshot().commit}\n"
    assert second.snapshot().commit == zoo.snapshot().commit == 6
    assert second.snapshot().records() == zoo.snapshot().records()
    assert second.verify() == ()
    assert len(second.snapshot().store.names("shards")) == 3
    second.append([new_record("3/c/0")])
    zoo.append([new_record("4/c/0")])
    with pytest.raises(ZooError, match="a copy with commits of its own"):
        call("copy", filled, copy)
    new_zoo(tmp_path / "other").append([new_record("0/x/0")])
    with pytest.raises(ZooError, match="the place has another zoo"):
        call("copy", filled, tmp_path / "other")


def test_a_zoo_moves_into_an_object_store_and_back(path: Path, s3_url: str, tmp_path: Path):
    new_zoo(path).append([new_record("0/a/0"), new_record("0/b/0")])
    call("copy", path, s3_url)
    call("copy", s3_url, tmp_path / "back")
    names = [
        file.relative_to(path) for file in path.rglob("*") if file.suffix[1:4] in ("jso", "saf")
    ]
    assert len(names) == 3
    for name in names:
        assert (path / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
    assert Zoo.open(tmp_path / "back").verify() == Zoo.open(s3_url).verify() == ()


def test_forget_lists_the_releases_that_learned_from_the_site(filled: Path | str, tmp_path: Path):
    releases = tmp_path / "releases"
    write_release(releases, "00001", sites=["a", "b"], state="promoted")
    write_release(releases, "00002", sites=["b"])
    write_release(releases, "00003", sites=["a"])
    write_release(releases, "00004", sites=["b"], parent="00003")
    write_release(releases, "00005", sites=["b"], parent="00002")
    write_release(releases, "00006", parent="00004")
    with pytest.raises(UsageError, match="Confirm with --yes"):
        call("forget", filled, "a", "--releases", releases)
    done = call("forget", filled, "a", "--yes", "--releases", releases, "--json")
    assert json.loads(done) == {
        "site": "a",
        "commit": 4,
        "releases": [
            {"id": "00001", "state": "promoted", "learned": "direct", "parent": ""},
            {"id": "00003", "state": "candidate", "learned": "direct", "parent": ""},
            {"id": "00004", "state": "candidate", "learned": "inherited", "parent": "00003"},
            {"id": "00006", "state": "candidate", "learned": "inherited", "parent": "00004"},
        ],
    }
    assert listed(filled) == ["0/b/0"]
    again = call("forget", filled, "a", "--yes", "--releases", releases)
    assert "release 00001 (promoted) was fitted on its networks\n" in again
    assert "release 00004 (candidate) goes on from 00003, which was affected\n" in again
    assert "00005" not in again


def test_list_shows_what_a_release_was_fitted_on(path: Path):
    zoo = new_zoo(path)
    zoo.append([new_record("0/a/0"), new_record("0/b/0")])
    zoo.append([new_record("1/a/0")])
    write_release(path.parent / "releases", "00001", records=["0/b/0", "1/a/0"], snapshot=1)
    assert listed(path, "--release", "00001") == ["0/b/0"]
    with pytest.raises(ReleaseError, match="no such release: expected one of 00001, got 9"):
        listed(path, "--release", "9")


def test_a_state_dict_needs_a_context(path: Path, tmp_path: Path):
    zoo = new_zoo(path)
    state = {"body.weight": torch.ones(2, 3), "body.bias": torch.ones(2), "scale": torch.ones(())}
    torch.save(state, tmp_path / "net.pt")
    words = ("import", path, tmp_path / "net.pt", "--site", "c", "--round", 2)
    with pytest.raises(ZooError, match="the file has no context"):
        call(*words)
    np.save(tmp_path / "context.npy", np.zeros(CONTEXT, np.float32))
    assert call(*words, "--context", tmp_path / "context.npy") == "commit 1\n"
    assert [key[:4] for key in keys_of(zoo.snapshot().records())] == ["2/c/"]
    with pytest.raises(UsageError, match=r"net\.pt: not a"):
        call(*words, "--context", tmp_path / "net.pt")


def test_verify_ends_with_one_and_names_what_is_wrong(path: Path):
    zoo = new_zoo(path)
    zoo.append([new_record("0/a/0")])
    next((path / "shards").iterdir()).write_bytes(b"")
    done = CliRunner().invoke(commands.app, ["verify", str(path), "--json"])
    assert done.exit_code == 1
    assert [fault["what"] for fault in json.loads(done.stdout)] == ["the shard is empty"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "{}", "--metric", "accuracy"], "not a range of a metric: expected NAME:LOW:HIGH"),
        (["list", "{}", "--commit", "7"], "no such commit: expected 0 to 0, got 7"),
        (["forget", "{}", "x", "--yes"], "unknown site: got 'x'"),
        (["forget", "{}", "x", "--yes", "--releases", "{}/none"], "no such folder"),
        (["import", "{}", "{}/none", "--site", "a", "--round", "0"], "none: no such file"),
        (["stats", "{}/none"], "not a zoo"),
        (["stats", "ftp://bucket/zoo"], "not the address of a zoo"),
    ],
)
def test_wrong_input_is_answered_in_one_sentence(path: Path, words: list[str], message: str):
    new_zoo(path)
    with pytest.raises(F2LError, match=message):
        call(*(word.format(path) for word in words))


def test_a_zoo_in_an_object_store_does_not_say_where_its_releases_are(s3_url: str):
    new_zoo(s3_url).append([new_record("0/a/0")])
    with pytest.raises(UsageError, match="or that of the releases with --releases"):
        call("forget", s3_url, "a", "--yes")
    assert len(Zoo.open(s3_url).snapshot().records()) == 1
