"""A federation whose zoo lies in an object store: rounds, retraining, explanation, commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from f2l_fed.config import load_config
from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.zoo import Zoo
from f2l_fed.zoo.storage import s3
from server.commands import server
from server.commands.admin import app
from server.federation.folder import Federation
from server.generator.explanation import explain_site
from tests.support.commands import in_process
from tests.support.inline import run_inline
from tests.support.s3_server import BUCKET, s3_server
from tests.support.small_federation import SETTINGS, small_federation

SECRET = "a-secret-of-the-object-store"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which all processes of a federation reach its zoo."""
    cache = tmp_path_factory.mktemp("cache")
    with s3_server() as found:
        yield {**found, "AWS_SECRET_ACCESS_KEY": SECRET, "XDG_CACHE_HOME": str(cache)}


@pytest.fixture
def reachable(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def admin(*words: object) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


@pytest.mark.usefixtures("reachable")
def test_rounds_and_commands_find_the_zoo_and_no_file_has_a_secret(tmp_path: Path):
    place = f"s3://{BUCKET}/inline"
    federation, _ = small_federation(tmp_path / "fed", settings=(f"zoo={place}",))
    first, second = run_inline(federation, 2)
    assert (first.step, second.step) == ("done", "done")
    assert not (federation.root / "zoo").exists()
    records = Zoo.open(place).snapshot().records()
    assert {record.round for record in records} == {1, 2}
    newest = federation.releases.ids()[-1]
    site = federation.releases.read(newest).sites[0]
    assert explain_site(federation, federation.releases.read(newest), site).site == site
    assert json.loads(admin("zoo", "stats", federation.root, "--json"))["records"] == len(records)
    admin("zoo", "compact", federation.root)
    assert admin("zoo", "verify", federation.root) == "nothing is wrong\n"
    told = json.loads(admin("site", "forget", federation.root, site, "--yes", "--json"))
    assert [release["learned"] for release in told["releases"]] == ["direct", "direct"]
    left = Federation.open(federation.root).zoo.snapshot().records()
    assert {record.site for record in left} == {record.site for record in records} - {site}
    assert not any(SECRET.encode() in file.read_bytes() for file in files_below(tmp_path))


@pytest.mark.usefixtures("reachable")
def test_a_simulation_of_own_vectors_keeps_its_zoo_in_an_object_store(tmp_path: Path):
    place, out, mine = f"s3://{BUCKET}/simulated", tmp_path / "out", tmp_path / "mine.npz"
    draws, y = np.random.default_rng(0), np.arange(1200) % 6
    np.savez(mine, x=draws.normal(size=(6, 12))[y] + draws.normal(size=(1200, 12)), y=y)
    small = [word for setting in SETTINGS for word in ("--set", setting)]
    done = in_process(
        *("f2l-admin", "simulate", "--data", str(mine), "--scenario", "dirichlet"),
        *("--sites", "6", "--held-out", "2", "--rounds", "1", *small),
        *("--set", f"zoo={place}", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    assert len(Zoo.open(place).snapshot().records()) == 12
    assert not (out / "zoo").exists()
    assert len(Federation.open(out).releases.ids()) == 1
    assert not any(SECRET.encode() in file.read_bytes() for file in files_below(out))
    arms = json.loads((out / "result.json").read_text())["held_out"]["seen"]["arms"]
    assert arms["generated"]["accuracy"][0] > arms["random"]["accuracy"][0] + 0.2


@pytest.mark.usefixtures("reachable")
def test_a_zoo_in_an_object_store_is_never_replaced_and_the_old_results_stay(tmp_path: Path):
    settings = (f"zoo=s3://{BUCKET}/kept",)
    federation, _ = small_federation(tmp_path / "fed", settings=settings)
    before = {path: path.read_bytes() for path in files_below(federation.root)}
    with pytest.raises(UsageError, match="a simulation replaces none"):
        small_federation(tmp_path / "fed", settings=settings, force=True)
    assert {path: path.read_bytes() for path in files_below(federation.root)} == before


@pytest.mark.parametrize(
    "place", ["", "s3://", "http://bucket/zoo", f"s3://key:{SECRET}@bucket/zoo"]
)
def test_a_place_that_can_not_be_is_refused(place: str):
    with pytest.raises(ConfigError, match="expected a folder, or s3://bucket/prefix without"):
        load_config(None, [f"zoo={place!r}"])


@pytest.mark.usefixtures("reachable")
def test_a_zoo_that_can_not_be_reached_leaves_no_federation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(s3, "_RETRIES", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done = CliRunner().invoke(
        server.app, ["init", str(tmp_path / "fed"), "--set", "zoo=s3://bucket/zoo"]
    )
    assert "the request to the object store failed" in str(done.exception)
    assert not (tmp_path / "fed/federation.json").exists()
