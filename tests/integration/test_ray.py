"""The backend on Ray: lost processes, Ray Train, a cluster of two nodes, the loss of its head."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from f2l_fed.codec.latent_shape import LatentShape
from f2l_fed.config import RayConfig
from f2l_fed.flow import FlowConfig, FlowFit, fit_flow
from server.cluster import flow_training
from server.cluster.backend import EngineBackend
from server.cluster.connection import connect, disconnect
from server.cluster.flow_training import TrainedFlow
from server.cluster.held_out import served_release
from server.cluster.ray_engine import RayEngine, typed_errors
from server.generator.candidates import CandidateFactory
from server.rounds import state_files
from server.rounds.state import Interrupted, is_transient
from tests.attacks.peers.ray_intruder import listeners_of
from tests.support.conducted import after_rounds
from tests.support.deployment import free_ports
from tests.support.ray_nodes import MARKS, end, end_session, token_file, two_nodes, wait_until
from tests.support.small import rng
from tests.support.small_federation import small_federation
from tests.support.waiting import PATIENCE_S

pytestmark = MARKS

IMPATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
"""Ray's patience with a lost head, which is a minute."""

SHAPE = LatentShape(common=8, classes=3, width=4)
LONG = FlowConfig(steps=200, width=16, depth=1, check_every=50, patience=100, lr=5e-3)


@pytest.fixture(scope="module")
def embedded() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        connect(RayConfig(cpus=2))
        yield
    finally:
        disconnect()
        # Its leftovers warn here, where that is expected, and not in a later file's test.
        gc.collect()


def fitted(how: Callable[..., FlowFit], config: FlowConfig = LONG) -> tuple[FlowFit, torch.Tensor]:
    """A fit of targets that depend on their contexts, and where its draws ended."""
    draws = rng(0)
    expected = torch.randn(60, SHAPE.size, generator=draws)
    targets = expected.roll(1, dims=1) + 0.3 * torch.randn(60, SHAPE.size, generator=draws)
    fit = how(targets, expected, torch.ones(SHAPE.size), SHAPE, config, draws, group=2)
    return fit, draws.get_state()


def test_two_workers_fit_the_same_flow_and_a_killed_one_is_replaced(embedded, tmp_path):
    here = fitted(fit_flow)
    folder = tmp_path / "training"
    killed: list[int] = []
    hosts: set[str] = set()

    def kill_one() -> None:
        """After a checkpoint, so that the next one begins from there."""
        while not list(folder.glob("flow/checkpoint*")) and not stop.wait(0.05):
            pass
        hosts.update(host for host, _ in listeners_of(os.getpid()))
        pid = int((folder / "worker-1.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    stop = threading.Event()
    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        there = fitted(TrainedFlow(folder=folder, config=RayConfig(train_workers=2)))
    finally:
        stop.set()
        thread.join()
    assert len(killed) == 1
    assert hosts == {"127.0.0.1"}
    assert not folder.exists()
    # The same steps on the same examples, summed in another order.
    assert there[0].loss == pytest.approx(here[0].loss, rel=0.02)
    assert torch.equal(there[1], here[1])


def test_a_retraining_shared_among_tasks_makes_the_release_of_one_alone(embedded, tmp_path):
    # With its records on a disk, which is what tasks share.
    federation = after_rounds(tmp_path / "out", settings=("probe.anchors=1", "ray.memory_mb=0"))
    commit, made = federation.zoo.snapshot().commit, []
    # As the sites of a simulation do.
    booked = ray.remote(num_cpus=2)(Counter).remote()
    for shared in ({}, {"train_workers": 1}, {"part_workers": 2}):
        engine = RayEngine(RayConfig(engine="ray", **shared))
        backend = EngineBackend(root=federation.root, engine=engine)
        release = backend.retrain("00002", commit)
        folder = federation.releases.path / "00002"
        made.append((release, {file.name: file.read_bytes() for file in folder.iterdir()}))
    assert made[0] == made[1] == made[2]
    assert not list((federation.root / "training").iterdir())
    ray.kill(booked)


def test_a_ray_that_starts_too_slowly_is_started_again_and_too_few_cpus_are_told():
    """See `tests.support.slow_start`: also nothing of the first start is left."""
    command = [sys.executable, "-m", "tests.support.slow_start"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=root)
    assert done.returncode == 0, done.stderr


def ended_by_its_own_task() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    ray.get(ray.remote(num_cpus=0, max_retries=0)(die).remote())


def test_a_process_that_a_task_lost_interrupts_the_round(embedded):
    with pytest.raises(Interrupted, match="the cluster lost a task"), typed_errors():
        ray.get(ray.remote(num_cpus=0)(ended_by_its_own_task).remote())


def test_what_a_training_worker_s_disk_refuses_is_no_failed_fit(embedded, tmp_path):
    config = RayConfig(train_workers=1, train_failures=0)

    def full(settings: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), settings["folder"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow_training, "_work", full)
        with pytest.raises(OSError, match="No space left") as caught:
            fitted(TrainedFlow(folder=tmp_path / "t", config=config))
    assert is_transient(caught.value)
    assert not (tmp_path / "t").exists()


@contextmanager
def killing(name: bytes) -> Iterator[list[int]]:
    """Kills the first process of ours that runs a task of this name; its id is in the list."""
    killed: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                pid = int(entry.parent.name)
                try:
                    said = entry.read_bytes()
                except OSError:
                    continue
                if said.startswith(b"ray::" + name) and ours(pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_candidates_are_made_though_a_process_is_killed(embedded, tmp_path):
    federation = after_rounds(tmp_path / "out")
    factory = CandidateFactory.open(federation, "00001")
    draws = rng(3)
    known = served_release(federation, "00001").records.contexts[:2]
    probes = {f"new-{n:03d}": known + 0.01 * torch.randn(2, 1, generator=draws) for n in range(100)}
    backend = EngineBackend(root=federation.root, engine=RayEngine(RayConfig(task_cpus=0.5)))
    with killing(b"candidates_here") as killed:
        offered = dict(backend.candidates("00001", probes))
    assert len(killed) == 1
    assert set(offered) == set(probes)
    ((_, expected),) = factory.candidates(["new-007"], probes["new-007"][None])
    for got, wanted in zip(offered["new-007"], expected, strict=True):
        assert got.keys() == wanted.keys()
        assert all(torch.allclose(got[kind], wanted[kind], atol=1e-5) for kind in wanted)


def ours(pid: int) -> bool:
    """Whether a process descends from this one."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        pid = int(fields[1])
    return False


def test_a_retraining_whose_process_is_killed_is_repeated(embedded, tmp_path):
    federation = after_rounds(tmp_path / "out", settings=("probe.anchors=1",))
    commit = federation.zoo.snapshot().commit
    backend = EngineBackend(root=federation.root, engine=RayEngine(RayConfig()))
    with killing(b"retrain_here") as killed:
        release = backend.retrain("00002", commit)
    assert len(killed) == 1
    assert federation.releases.read("00002") == release


def test_a_round_survives_the_loss_of_the_clusters_head(tmp_path):
    ports = free_ports(5)
    federation, _ = small_federation(
        tmp_path / "out",
        sites=4,
        settings=(
            f"ray.address=127.0.0.1:{ports[0]}",
            f"ray.token_file={token_file(tmp_path)}",
            "ray.task_cpus=1",
            "flow.steps=1500",
        ),
    )
    root = federation.root

    def conducting(count: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.on_cluster", str(root), str(count), "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **IMPATIENT},
        )

    def step() -> str:
        states = state_files.load_states(root / "rounds")
        return states[-1].step if states else ""

    with two_nodes(tmp_path, ports) as (head, _):
        process = conducting(1)
        wait_until(lambda: step() == "retrain" or process.poll() is not None, "retraining")
        assert process.poll() is None
        end(head)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            # Where Ray does not give up, an operator does.
            end_session(process.pid)
            process.wait(PATIENCE_S)
    assert step() == "retrain"

    with two_nodes(tmp_path, ports):
        process = conducting(1)
        assert process.wait(PATIENCE_S) == 0
    states = state_files.load_states(root / "rounds")
    assert [state.step for state in states] == ["done", "done"]
    keys = Counter(record.key for record in federation.zoo.snapshot().records())
    assert len(keys) == 16
    assert set(keys.values()) == {1}
