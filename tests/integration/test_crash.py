"""The conducting process gets SIGKILL, at every boundary that matters, and is started again.

After it the federation has to be where it would be without: every round ended, every accepted
record once in the zoo, and releases of the same bits.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from server.federation.folder import Federation
from server.rounds import state_files
from tests.support.small_federation import small_federation
from tests.support.waiting import PATIENCE_S

SITES, ROUNDS = 4, 2
SETTINGS = (
    "first.steps=5",
    "later.steps=3",
    "flow.steps=20",
    # One at a time, so that sites work between commits, not before all of them.
    "round.in_flight=1",
    # A generator of four sites is no good; here it has to pass.
    *("gate.min_explained=-100", "gate.min_conditioning=-100"),
    *("gate.min_dispersion=0", "gate.max_dispersion=100"),
)


@dataclass(frozen=True)
class Killer:
    """`tests.support.crash`, and the federation as it was before any round."""

    process: subprocess.Popen[str]
    fresh: Path

    def run(self, root: Path, kills: list[int]) -> dict[str, list[str]]:
        shutil.copytree(self.fresh, root)
        job = {"root": str(root), "rounds": ROUNDS, "kills": kills}
        to, back = pipes(self.process)
        to.write(json.dumps(job) + "\n")
        to.flush()
        line = back.readline()
        assert line, "the program ended; see its errors"
        return json.loads(line)


def pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin
    assert process.stdout
    return process.stdin, process.stdout


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    fresh = tmp_path_factory.mktemp("fresh") / "federation"
    small_federation(fresh, sites=SITES, settings=SETTINGS)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.crash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        try:
            yield Killer(process, fresh)
            pipes(process)[0].close()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(killer, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed") / "federation"
    return root, killer.run(root, [])["steps"]


def as_if_nothing_had_happened(root: Path, reference: Path) -> None:
    federation = Federation.open(root)
    states = state_files.load_states(root / "rounds")
    assert [(state.number, state.step, state.promoted) for state in states] == [
        (1, "done", True),
        (2, "done", True),
    ]
    keys = Counter(record.key for record in federation.zoo.snapshot().records())
    names = [f"site-{n:03d}" for n in range(SITES)]
    assert keys == Counter(f"{n}/{s}/{e}" for n in (1, 2) for s in names for e in (0, 1))
    for state in states:
        assert (state.sites, state.accepted, state.rejected) == (SITES, tuple(names), {})
    assert federation.zoo.verify() == ()
    registry = federation.releases
    assert [registry.read(id).state for id in registry.ids()] == ["retired", "promoted"]
    assert not (root / "spool").exists()
    memory = "screening.safetensors"
    assert (root / memory).read_bytes() == (reference / memory).read_bytes()
    for id in registry.ids():
        file = f"releases/{id}/generator.safetensors"
        assert (root / file).read_bytes() == (reference / file).read_bytes()


BOUNDARIES = {
    "before the round's first state": ("replace", "rounds/00001.json", 0),
    "after the first commit's rows, before the commit": ("link", "zoo/log/", 0),
    "after a commit, before it is counted": ("unlink", "zoo/tmp/", 1),
    "after the exchange, before the state says so": ("replace", "rounds/00001.json", 1),
    "with a release that is half written": ("fsync", "expected.safetensors", 0),
    "with a release, before the state says so": ("replace", "rounds/00001.json", 2),
    "before the pointer": ("replace", "releases/promoted", 0),
    "with the pointer, before the release knows": ("replace", "releases/00001/release.json", 0),
    "promoted, before the state says so": ("replace", "rounds/00001.json", 3),
    "before the old release knows that it is retired": (
        "replace",
        "releases/00001/release.json",
        1,
    ),
    "before the last state": ("replace", "rounds/00002.json", 3),
    "at the very end": ("rmdir", "", -1),
}


@pytest.mark.slow
@pytest.mark.parametrize("where", BOUNDARIES)
def test_a_killed_process_leaves_nothing_undone_and_nothing_done_twice(
    killer, undisturbed, tmp_path, where
):
    reference, steps = undisturbed
    call, what, which = BOUNDARIES[where]
    matching = [
        k for k, step in enumerate(steps) if step.startswith(call) and what in step.split(" ")[-1]
    ]
    done = killer.run(tmp_path / "federation", [matching[which]])
    assert done["ends"] == ["killed"]
    as_if_nothing_had_happened(tmp_path / "federation", reference)


@pytest.mark.slow
def test_a_process_that_dies_again_and_again_gets_there(killer, undisturbed, tmp_path):
    reference, _ = undisturbed
    draws = random.Random(1)
    done = killer.run(tmp_path / "federation", [draws.randrange(25, 45) for _ in range(9)])
    assert done["ends"].count("killed") >= 5
    as_if_nothing_had_happened(tmp_path / "federation", reference)


@pytest.mark.skipif("F2L_EXHAUSTIVE" not in os.environ, reason="takes minutes; F2L_EXHAUSTIVE=1")
@pytest.mark.slow
def test_there_is_no_step_at_which_it_may_not_die(killer, undisturbed, tmp_path):
    reference, steps = undisturbed
    for after in range(len(steps)):
        root = tmp_path / f"after-{after}"
        assert killer.run(root, [after])["ends"] == ["killed"]
        as_if_nothing_had_happened(root, reference)
        shutil.rmtree(root)
