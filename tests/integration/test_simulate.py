"""`f2l-admin simulate` as a user runs it, with sites in local processes and once on a real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.core.locks import locked
from f2l_fed.evaluation.arm_names import BASELINE_ARMS, keys
from f2l_fed.evaluation.baselines.personalised.registry import PERSONALISED_BASELINES
from f2l_fed.evaluation.baselines.registry import BASELINES
from tests.support.commands import in_process
from tests.support.small_federation import SETTINGS, small_federation
from tests.support.waiting import PATIENCE_S, holds

BIN = Path(sys.executable).parent
SMALL = [
    *("--data", "digits", "--sites", "6", "--held-out", "2", "--rounds", "2"),
    *(word for setting in SETTINGS for word in ("--set", setting)),
]


ON_RAY = ("--set", "ray.engine=ray")


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return in_process("f2l-admin", "simulate", *arguments)


def simulate_apart(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "f2l-admin", "simulate", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "COLUMNS": "120"},
    )


def without_times(result: dict) -> dict:
    """A result without what differs from run to run and between the engines."""
    rounds = [{**row, "seconds": 0} for row in result["rounds"]]
    settings = {**result["settings"], "ray": {}}
    return {**result, "rounds": rounds, "settings": settings, "wall_seconds": 0}


def releases_in(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("releases/*/*.safetensors")}


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_whole_federation_and_a_second_run_on_ray_with_the_same_seed(tmp_path):
    out = tmp_path / "out"
    done = simulate_apart(*SMALL, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "round 2/2: 6 networks accepted, 0 in quarantine, 0 rejected" in done.stderr
    assert str(out / "report.html") in done.stdout
    assert "generated" in done.stdout
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == 1
    assert [row["accepted"] for row in result["rounds"]] == [6, 6]
    seen = result["held_out"]["seen"]
    assert seen["steps"] == [0, 1, 5, 10, 20, 50]
    assert tuple(seen["arms"]) == keys("head")
    assert set(seen["confidence"]) == set(seen["arms"])
    assert set(seen["confidence"]["generated"]) == {"loss", "calibration_error", "accuracy_at_80"}
    assert all(len(row["accuracy"]) == len(row["ci95"]) == 6 for row in seen["arms"].values())
    assert result["held_out"]["unseen"] is None
    assert "baselines" not in result
    assert "<html" in (out / "report.html").read_text()

    refused = one_sentence(in_process("f2l-admin", "simulate", *SMALL, "--out", str(out)))
    assert "--force" in refused
    assert json.loads((out / "result.json").read_text()) == result

    made = releases_in(out)
    assert set(made) == {"00001", "00002"}
    again = simulate_apart(*SMALL, *ON_RAY, "--out", str(out), "--force", "--json")
    assert again.returncode == 0, again.stderr
    assert without_times(json.loads(again.stdout)) == without_times(result)
    assert releases_in(out) == made


@pytest.mark.slow
def test_baselines_stand_beside_the_arms_with_their_costs(tmp_path):
    out = tmp_path / "out"
    few = ("episodes.first=6", "episodes.steps=3")
    settings = [word for setting in few for word in ("--set", setting)]
    done = simulate(*SMALL, *settings, "--baselines", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == 1
    part, theirs = result["held_out"]["seen"], [arm.key for arm in BASELINE_ARMS]
    assert list(part["arms"]) == [*keys("head"), *theirs]
    assert all(len(row["accuracy"]) == len(row["ci95"]) == 6 for row in part["arms"].values())
    assert set(part["confidence"]) == set(part["arms"])
    assert set(result["steps_to_target"]["seen"]["arms"]) == set(part["arms"])
    costs = result["baselines"]
    assert list(costs) == list(BASELINES)
    assert all(
        cost["local_steps"] == 9 for key, cost in costs.items() if key in ("protonet", "fedavg")
    )
    assert 0 < costs["fedper_logistic"]["bytes_up"] < costs["fedavg"]["bytes_up"]
    # A federation's target is the head here; whole networks have its numbers and more.
    assert costs["fedavg"]["bytes_up"] > 4 * result["target"]["parameters"]
    assert "ProtoNet + LR" in done.stdout
    assert "kB up" in done.stdout
    assert "Per-FedAvg" in (out / "report.html").read_text()


@pytest.mark.slow
def test_shared_labels_add_the_baselines_own_networks_of_training_sites(tmp_path):
    out = tmp_path / "out"
    done = simulate(*SMALL, "--scenario", "dirichlet", "--baselines", "--out", str(out))
    assert done.returncode == 0, done.stderr
    part = json.loads((out / "result.json").read_text())["personalised"]
    assert part["rounds"] == [1, 2]
    assert tuple(part["methods"]) == tuple(PERSONALISED_BASELINES)
    for row in part["methods"].values():
        assert len(row["weighted"]) == len(row["plain"]) == 2
    assert part["methods"]["fedavg_epochs"]["weighted"][-1] > 0.8
    assert part["methods"]["fedavg_epochs"]["cost"]["own_steps"] > 0
    assert "FedRep" in done.stdout
    assert "an averaged body" in (out / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("engine", [(), ON_RAY], ids=["local", "ray"])
def test_ctrl_c_ends_every_process_and_says_where_partial_results_are(tmp_path, engine):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [BIN / "f2l-admin", "simulate", *SMALL, *engine, "--out", str(out), "--rounds", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever was started in the background ignores it, and so do his children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        begun = (out / "rounds/00001.json").exists
        assert holds(lambda: begun() or process.poll() is not None)
        assert process.poll() is None
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, errors
    assert str(out) in errors
    assert "Traceback" not in errors
    assert holds(lambda: not in_session(process.pid)), f"left behind: {in_session(process.pid)}"


@pytest.mark.slow
def test_sites_with_tables_of_their_own_as_a_spreadsheet_writes_them(tmp_path):
    rng = np.random.default_rng(0)
    sites = []
    for name in ("north", "south", "west"):
        lines = ["Nr;größe;Ergebnis"]
        for n in range(60):
            size = f"{rng.normal(3 * (n % 2)):.3f}".replace(".", ",")
            lines.append(f"{n};{size};{['gut', 'Riß'][n % 2]}")
        (tmp_path / f"{name}.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
        sites += ["--site", f"{name}={tmp_path / name}.csv"]
    settings = [word for setting in SETTINGS[1:] for word in ("--set", setting)]
    done = simulate(
        *sites,
        *("--set", "data.label=Ergebnis", "--rounds", "1", *settings, "--out", f"{tmp_path}/out"),
    )
    assert done.returncode == 0, done.stderr
    assert "remark: The decimal mark is a comma." in done.stderr
    assert "too few for an interval" in " ".join(done.stdout.split())
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["data"] == ["north", "south", "west"]
    assert result["target"]["name"] == "mlp"
    assert result["rounds"][0]["accepted"] == 2


def in_session(session: int) -> list[int]:
    """Living processes of a session, which is that of all whom the driver has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("arrays", "arguments", "said"),
    [
        ({"x": np.zeros((40, 8, 8))}, (), "y"),
        ({"x": np.zeros((40, 8, 8)), "y": np.zeros(39, int)}, (), "39"),
        ({"x": np.full((40, 8, 8), np.nan), "y": np.arange(40) % 4}, (), "NaN"),
        (
            {"x": np.random.default_rng(0).random((40, 8, 8)), "y": np.zeros(40, int)},
            (),
            "two classes",
        ),
        ({"x": np.zeros((40, 2, 2, 2, 2)), "y": np.arange(40) % 4}, (), "dimensions"),
        (
            {"x": np.random.default_rng(0).random((40, 8, 8)), "y": np.arange(40) % 8},
            (),
            "examples",
        ),
        (
            {"x": np.random.default_rng(0).random((1800, 12)), "y": np.arange(1800) % 9},
            ("--set", "target.name=cnn-xs"),
            "mlp",
        ),
    ],
    ids=["no y", "lengths", "nan", "one class", "dimensions", "too few", "target"],
)
def test_data_that_can_not_be_used_gets_one_sentence_and_code_2(tmp_path, arrays, arguments, said):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    out = str(tmp_path / "out")
    done = in_process("f2l-admin", "simulate", "--data", str(path), "--out", out, *arguments)
    assert said in one_sentence(done)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_which_rounds_are_conducted_is_left_alone_even_with_force(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    before = sorted(path for path in federation.root.rglob("*"))
    with locked(federation.root / "rounds/lock", wait=False):
        words = ("simulate", *SMALL, "--out", str(federation.root), "--force")
        said = one_sentence(in_process("f2l-admin", *words))
    assert "a process conducts rounds in this folder" in said
    assert sorted(path for path in federation.root.rglob("*") if path.name != "lock") == before


def test_a_folder_with_other_things_in_it_is_left_alone_even_with_force(tmp_path):
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites/mine.txt").write_text("keep me")
    words = ("simulate", *SMALL, "--out", str(tmp_path), "--force")
    said = one_sentence(in_process("f2l-admin", *words))
    assert "neither empty nor a federation's" in said
    assert (tmp_path / "sites/mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "flow.stepz=3"), "flow.steps"),
        (("--set", "flow.steps=many"), "flow.steps"),
        (("--set", "later.momentum=2"), "momentum"),
        (("--data", "minst5k"), "mnist5k"),
        (("--scenario", "fewshot"), "few-shot"),
        (("--set", "target.name=cnn-xl"), "cnn-xs"),
        (("--rounds", "0"), "rounds"),
        (("--set", "ray.engine=ray", "--set", "ray.task_cpus=1"), "ray.task_cpus"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_wrong_usage_gets_one_sentence_with_the_remedy_and_code_2(tmp_path, arguments, said):
    base = ("--data", "digits", "--set", "target.name=mlp", "--out", str(tmp_path / "out"))
    assert said in one_sentence(in_process("f2l-admin", "simulate", *base, *arguments))
