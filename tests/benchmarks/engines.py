"""A simulation in local processes and on Ray: seconds of a whole run and of its last exchange.

`python -m tests.benchmarks.engines [--sites 10 50 200] [--json OUT.json]`

Each is `f2l-admin simulate` with two rounds of digits and a cnn-xs, one after the other.
``until_round_1`` is the time until all sites have been asked for their contexts, ``exchange`` that
of the last round's tasks and answers. The releases of both are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.common import write_json
from tests.benchmarks.overhead import SETTINGS

ROUNDS = 2


def measured(engine: str, sites: int, out: Path) -> dict[str, Any]:
    """One simulation in a process of its own."""
    few = ("first.steps=50", "later.steps=50", "target.name=cnn-xs", f"ray.engine={engine}")
    words = ["simulate", "--data", "digits", "--sites", str(sites), "--held-out", "2"]
    words += ["--rounds", str(ROUNDS), "--out", str(out)]
    words += [word for setting in (*SETTINGS, *few) for word in ("--set", setting)]
    began = time.monotonic()
    command = [str(Path(sys.executable).parent / "f2l-admin"), *words]
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    probed = next(e["time"] for e in events if e["event"] == "round.started")
    states = [json.loads((out / f"rounds/{n:05d}.json").read_text()) for n in (1, ROUNDS)]
    rounds = sum(sum(state["seconds"].values()) for state in states)
    ended = time.time() - probed
    return {
        "sites": sites,
        "engine": engine,
        "whole_s": round(whole, 1),
        "until_round_1_s": round(whole - ended, 1),
        "rounds_s": round(rounds, 1),
        "exchange_s": round(states[-1]["seconds"]["exchange"], 2),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    for sites in asked.sites:
        made = []
        for engine in ("local", "ray"):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out"
                rows.append(measured(engine, sites, out))
                made.append(
                    {
                        path.parent.name: path.read_bytes()
                        for path in out.glob("releases/*/generator.safetensors")
                    }
                )
        if not made[0] or made[0] != made[1]:
            raise SystemExit(f"the releases of {sites} sites differ")
    print("| " + " | ".join(rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    write_json(asked.json, {"rounds": ROUNDS, "rows": rows})


if __name__ == "__main__":
    main()
