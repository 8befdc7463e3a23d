"""Endurance: memory, file handles and threads of one process over many rounds.

A small federation on the loopback grid: the server's part, the sites' part and the retraining all
run in this process, so leaks of any of them show. Then the SuperLink's part: Flower's own link
state behind the intake of replies, in a process of its own, with whole networks of a cnn-xs from
two nodes that answer eight times a round.
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from f2l_fed.events import ROUND_FINISHED
from f2l_fed.wire.packing import pack_task, pack_update
from f2l_fed.wire.reply_bound import reply_bound
from tests.benchmarks.common import memory_mib, options, write_json
from tests.benchmarks.messages import EPISODES, cases, task_of, update_of
from tests.support.inline import run_inline
from tests.support.small_federation import small_federation
from tests.support.superlink_state import SuperLinkState, reply_to

SITES = 4
ANSWERS = 16
SETTINGS = (
    *("probe.episodes=1", "first.steps=5", "later.steps=3", "flow.steps=20"),
    # A generator of four sites is no good; here it has to pass.
    *("gate.min_explained=-100", "gate.min_conditioning=-100"),
    *("gate.min_dispersion=0", "gate.max_dispersion=100", "gate.max_drift=1e9"),
)


def taken() -> dict[str, float]:
    """Present MiB of memory, open files and threads of this process."""
    gc.collect()
    return {
        "memory_mib": memory_mib("VmRSS"),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }


def endured(out: Path, rounds: int, at: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    """Runs the rounds; usage of the process after those in ``at``."""
    federation, _ = small_federation(out, sites=SITES, seed=seed, settings=SETTINGS)
    found: list[dict[str, Any]] = []
    began = time.perf_counter()

    def listen(event: str, fields: dict[str, Any]) -> None:
        if event == ROUND_FINISHED and fields["round"] in at:
            seconds = time.perf_counter() - began
            found.append({"round": fields["round"], "seconds": seconds, **taken()})

    states = run_inline(federation, rounds, listener=listen)
    bad = [state for state in states if state.step != "done" or len(state.accepted) != SITES]
    if bad or len(states) != rounds:
        raise SystemExit(f"a round did not end well: {bad[:1]}")
    return found


def held_by_superlink(rounds: int, at: tuple[int, ...]) -> list[dict[str, Any]]:
    """Usage of a process that is nothing but a SuperLink's state, after some of its rounds."""
    (case,) = (one for one in cases() if one.name == "whole network" and one.protocol == 4)
    link = SuperLinkState(reply_bound(case.layout, EPISODES))
    task, update = pack_task(task_of(case)), pack_update(update_of(case), case.layout)
    store, found = link.state.object_store, list[dict[str, Any]]()
    for number in range(1, rounds + 1):
        link.beat()
        for answer in range(ANSWERS):
            node = link.nodes[answer % len(link.nodes)]
            reply = reply_to(asked := link.ask(node, what=task), update)
            link.send(node, reply)
            (head,) = link.heard(asked).values()
            for part in get_all_nested_objects(reply):
                store.get(part)
            store.delete(head.metadata.message_id)
        if number in at:
            found.append({"round": number, "objects": len(store), **taken()})
    return found


def main() -> None:
    """Prints the tables."""
    given = options(__doc__ or "", seeds=1)
    torch.set_num_threads(1)
    rounds, at = (40, (10, 20, 30, 40)) if given.quick else (200, (20, 50, 100, 150, 200))
    with tempfile.TemporaryDirectory() as folder:
        rows = endured(Path(folder) / "federation", rounds, at, 1)
    print("round      s   memory MiB  files  threads")
    for row in rows:
        print(
            f"{row['round']:5d} {row['seconds']:6.0f} {row['memory_mib']:12.1f}"
            f" {row['files']:6.0f} {row['threads']:8.0f}"
        )
    rounds, at = (100, (10, 40, 70, 100)) if given.quick else (400, (10, 100, 200, 300, 400))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        link = pool.submit(held_by_superlink, rounds, at).result()
    print("SuperLink\nround  memory MiB  objects")
    for row in link:
        print(f"{row['round']:5d} {row['memory_mib']:11.1f} {row['objects']:8d}")
    write_json(given.json, {"sites": SITES, "rounds": rounds, "held": rows, "superlink": link})


if __name__ == "__main__":
    main()
