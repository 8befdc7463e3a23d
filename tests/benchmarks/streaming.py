"""Retrainings whose records lie on a disk: time, memory and files at a million weights and more.

`python -m tests.benchmarks.streaming [--quick] [--largest] [--json OUT.json]`

A federation's zoo gets records, one a site, of a perceptron with two hidden layers, of which a
part of rank 20 is told by the context. A whole retraining (the zoo read, prior, codec twice, flow,
draws, audit, release written, gate) then runs in a process of its own, with its records in memory
or on a disk. ``CPU`` and ``wall`` are its seconds; ``memory`` is the most that was its own at a
time, which mapped files are not; ``disk`` the most that its folder held beside zoo and release;
``generator`` and ``expected`` the files of the release; and ``a number`` is for every number in
contexts and weights. With ``--largest``, 200 records of ten million weights too, for which 60 GB of
disk are needed.

Then the same retraining as tasks of a Ray cluster of one and of two nodes, each of which is bound
to a core of its own: seconds until the release is there, in turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from torch import Tensor, nn

from f2l_fed.config import RayConfig, load_config
from f2l_fed.zoo import NewRecord
from server.cluster.backend import EngineBackend
from server.cluster.connection import connect, disconnect
from server.cluster.ray_engine import RayEngine
from server.federation.folder import Federation
from server.generator.gate import objections
from server.generator.retrain import records_folder, retrain
from tests.benchmarks.common import memory_mib, write_json
from tests.support.deployment import free_ports
from tests.support.ray_nodes import Node, token_file, two_nodes

INPUTS, RANK = 64, 20
SETTINGS = (
    f"target.input_shape=[{INPUTS}]",
    "target.classes=5",
    "probe.episodes=1",
    "probe.anchors=1",
    "gate.min_explained=-100",
    "gate.min_conditioning=-100",
    "gate.max_dispersion=100",
)
CASES = ((200, "small", 0), (200, "small", 10_000), (200, "million", 0), (200, "million", 10_000))
QUICK = ((40, "small", 0), (40, "small", 10_000))
LARGEST = ((200, "ten_million", 0),)
NODES = (200, "million", 3)
NODES_QUICK = (40, "small", 1)


def perceptron(width: int, inputs: tuple[int, ...], classes: int) -> nn.Module:
    """Two hidden layers of a width."""
    return nn.Sequential(
        nn.Linear(inputs[0], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    )


def small(inputs: tuple[int, ...], classes: int) -> nn.Module:
    """About 100,000 weights."""
    return perceptron(280, inputs, classes)


def million(inputs: tuple[int, ...], classes: int) -> nn.Module:
    """About a million weights."""
    return perceptron(965, inputs, classes)


def ten_million(inputs: tuple[int, ...], classes: int) -> nn.Module:
    """About ten million weights."""
    return perceptron(3125, inputs, classes)


def filled(root: Path, sites: int, factory: str, *settings: str) -> Federation:
    """A federation with a record of each site in its zoo."""
    config = load_config(
        None, [*SETTINGS, f"target.name=tests.benchmarks.streaming:{factory}", *settings]
    )
    federation, rng = Federation.create(root, config), torch.Generator().manual_seed(0)
    anchor, size = federation.anchor(None), federation.target.layout.size
    base = torch.randn(RANK, size, generator=rng) * 0.01

    def row(task: Tensor) -> Tensor:
        return task + 0.01 * torch.randn(size, generator=rng)

    for index in range(sites):
        task = torch.randn(RANK, generator=rng) @ base
        federation.zoo.append(
            [
                NewRecord(
                    key=f"1/site-{index:04d}/0",
                    site=f"site-{index:04d}",
                    round=1,
                    weights=(anchor + row(2 * task)).numpy(),
                    context=row(task).numpy(),
                )
            ]
        )
    return federation


@contextmanager
def watched(folder: Path, most: dict[str, float]) -> Iterator[None]:
    """Notes the most memory of this process's own, in MiB, and the most bytes in a folder."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most["memory"] = max(most["memory"], memory_mib("RssAnon"))
            files = [file.stat().st_size for file in folder.glob("*") if file.exists()]
            most["disk"] = max(most["disk"], sum(files))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def retrained(root: Path) -> dict[str, Any]:
    """The figures of one retraining and its gate."""
    torch.set_num_threads(1)
    federation = Federation.open(root)
    commit = federation.zoo.snapshot().commit
    most, before = {"memory": 0.0, "disk": 0.0}, memory_mib("RssAnon")
    wall, cpu = time.perf_counter(), time.process_time()
    with watched(records_folder(root, "00001"), most):
        release = retrain(root, "00001", commit)
        reasons = objections(federation, release)
    size = federation.target.layout.size
    numbers = 2 * len(release.sites) * size
    files = federation.releases.path / "00001"
    own = (most["memory"] - before) * 2**20
    return {
        "records": len(release.sites),
        "parameters": size,
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "memory_mb": own / 1e6,
        "memory_a_number": own / numbers,
        "disk_a_number": most["disk"] / numbers,
        "generator_mb": (files / "generator.safetensors").stat().st_size / 1e6,
        "expected_mb": (files / "expected.safetensors").stat().st_size / 1e6,
        "explained": release.figures["explained"],
        "reasons": reasons,
    }


def in_a_process_of_its_own(root: Path) -> dict[str, Any]:
    """See `retrained`."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(retrained, root).result()


def pin(node: Node, core: int) -> None:
    """Binds all threads of a node's processes to a core, and with them all that they start."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == node.pid:
                for thread in (entry / "task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})
        except (ProcessLookupError, FileNotFoundError):
            continue


def with_nodes(root: Path, config: RayConfig) -> float:
    """Seconds of a retraining on the cluster."""
    backend = EngineBackend(root=root, engine=RayEngine(config))
    commit = Federation.open(root).zoo.snapshot().commit
    start = time.perf_counter()
    backend.retrain("00001", commit)
    return time.perf_counter() - start


def one_and_two_nodes(
    folder: Path, sites: int, factory: str, repetitions: int
) -> dict[str, list[float]]:
    """Seconds by number of part workers; with one, all of it is on the first node's core."""
    ports = free_ports(5)
    federation = filled(folder / "nodes", sites, factory, "ray.memory_mb=0")
    base = RayConfig(
        address=f"127.0.0.1:{ports[0]}", token_file=str(token_file(folder)), task_cpus=1
    )
    found: dict[str, list[float]] = {"one": [], "two": []}
    with two_nodes(folder, ports) as nodes:
        for core, node in enumerate(nodes):
            pin(node, core)
        try:
            connect(base)
            while len([node for node in ray.nodes() if node["Alive"]]) < 2:
                time.sleep(0.2)
            for _ in range(repetitions):
                found["one"].append(with_nodes(federation.root, base))
                shared = replace(base, part_workers=2)
                found["two"].append(with_nodes(federation.root, shared))
        finally:
            disconnect()
    return found


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--largest", action="store_true", help="ten million weights, too")
    parser.add_argument("--only", choices=("alone", "nodes"), help="one of both parts")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    cases = QUICK if chosen.quick else CASES + (LARGEST if chosen.largest else ())
    print(
        f"{'records':>8}{'weights':>10}{'lie in':>8}{'CPU':>8}{'wall':>8}{'memory':>10}"
        f"{'a number':>10}{'disk':>8}{'generator':>11}{'expected':>10}{'explained':>11}"
    )
    for sites, factory, memory_mb in cases if chosen.only != "nodes" else ():
        with tempfile.TemporaryDirectory() as folder:
            federation = filled(Path(folder) / "f", sites, factory, f"ray.memory_mb={memory_mb}")
            row = in_a_process_of_its_own(federation.root)
        row["on_disk"] = not memory_mb
        rows.append(row)
        print(
            f"{row['records']:>8}{row['parameters']:>10}{'files' if not memory_mb else 'memory':>8}"
            f"{row['cpu']:>6.0f} s{row['wall']:>6.0f} s{row['memory_mb']:>7.0f} MB"
            f"{row['memory_a_number']:>8.1f} B{row['disk_a_number']:>6.1f} B"
            f"{row['generator_mb']:>8.0f} MB{row['expected_mb']:>7.0f} MB{row['explained']:>11.3f}",
            flush=True,
        )
    figures: dict[str, Any] = {"rows": rows}
    if chosen.only != "alone":
        with tempfile.TemporaryDirectory() as folder:
            seconds = one_and_two_nodes(Path(folder), *(NODES_QUICK if chosen.quick else NODES))
        one, two = (statistics.median(seconds[key]) for key in ("one", "two"))
        print(f"one node {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast")
        figures["nodes"] = seconds
    write_json(chosen.json, figures)


if __name__ == "__main__":
    main()
