"""Endurance: memory, file handles and threads of one process over many rounds.

A small federation on the loopback grid: the server's part, the sites' part and the retraining all
run in this process, so leaks of any of them show.
"""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from f2l_fed.events import ROUND_FINISHED
from tests.benchmarks.common import memory_mib, options, write_json
from tests.support.inline import run_inline
from tests.support.small_federation import small_federation

SITES = 4
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


def main() -> None:
    """Prints the table."""
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
    write_json(given.json, {"sites": SITES, "rounds": rounds, "held": rows})


if __name__ == "__main__":
    main()
