"""CPU time of a start: ``import f2l_fed``, and ``--help`` of the two command lines.

`python -m tests.benchmarks.startup [--quick] [--repeats N] [--json OUT.json]`

Each start is a process of its own with the interpreter of this one, after one that is not counted
and fills caches of files and byte code; the commands take turns. ``cpu`` is user and system time
of the process, which other work on the machine changes little, ``wall`` the elapsed time; both are
medians. ``above python`` is the CPU time beyond that of an interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.common import write_json

REPEATS = 5
BASE = "python"
BIN = Path(sys.executable).parent
COMMANDS: dict[str, tuple[str, ...]] = {
    BASE: (sys.executable, "-c", "pass"),
    "import f2l_fed": (sys.executable, "-c", "import f2l_fed"),
    "f2l-admin --help": (str(BIN / "f2l-admin"), "--help"),
    "f2l-site --help": (str(BIN / "f2l-site"), "--help"),
    "f2l-server --help": (str(BIN / "f2l-server"), "--help"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start.

    Args:
        cpu_s: User and system time in seconds.
        wall_s: Elapsed seconds.
    """

    cpu_s: float
    wall_s: float


def started(command: Sequence[str]) -> Start:
    """Runs a command to its end, without its output.

    Raises:
        SystemExit: If the command fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    # The usage of this one child; RUSAGE_CHILDREN would sum those of all.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return Start(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.perf_counter() - began,
    )


def measured(repeats: int) -> dict[str, list[Start]]:
    """All starts of every command, in turns, after one turn that is not counted."""
    turns = [
        {name: started(command) for name, command in COMMANDS.items()} for _ in range(1 + repeats)
    ]
    return {name: [turn[name] for turn in turns[1:]] for name in COMMANDS}


def summarise(starts: dict[str, list[Start]]) -> dict[str, dict[str, Any]]:
    """Medians by command, and all CPU times."""
    base = median(start.cpu_s for start in starts[BASE])
    return {
        name: {
            "cpu_s": (cpu := median(start.cpu_s for start in some)),
            "above_python_s": cpu - base,
            "wall_s": median(start.wall_s for start in some),
            "all_cpu_s": [start.cpu_s for start in some],
        }
        for name, some in starts.items()
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="start each command once")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="starts of each command")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    repeats = 1 if chosen.quick else chosen.repeats
    rows = summarise(measured(repeats))
    print(f"{f'medians of {repeats}':<20}{'cpu s':>8}{'above python':>14}{'wall s':>9}")
    for name, row in rows.items():
        print(f"{name:<20}{row['cpu_s']:>8.3f}{row['above_python_s']:>14.3f}{row['wall_s']:>9.3f}")
    write_json(chosen.json, {"repeats": repeats, "commands": rows})


if __name__ == "__main__":
    main()
