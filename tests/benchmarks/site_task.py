"""The cost of a task at a site: in a process of its own, and in one that a fork server forks.

`python -m tests.benchmarks.site_task [--quick] [--json OUT.json]`

Both answer the same packed task, by the functions and with the imports of the daemon's own, but
without Flower's messages around it. ``cpu`` is user and system time of the process, ``MB`` the
memory that it shares with no other process at its end, ``wall`` the time from asking for it to its
end. Medians; the fork server's own start is a row of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from clients.daemon.forked_process import SERVE, ForkServer
from f2l_fed.flower.inner_access import STARTING
from f2l_fed.flower.superexec import token_file
from tests.benchmarks.common import write_json

MODULE, ONCE = "tests.benchmarks.site_task", "--once"
TASK = "F2L_BENCHMARK_TASK"
"""Environment variable: the site's file and that of the packed task, or "" for no work at all."""


def answer() -> None:
    """The work of a task's process, which then tells what it has used."""
    import resource

    if os.environ[TASK]:
        from clients.site.site import open_site
        from clients.training.outgoing import update_message
        from f2l_fed.wire.serialization import from_bytes

        site, task = map(Path, os.environ[TASK].split(os.pathsep))
        update_message(open_site(site), from_bytes(task.read_bytes()), app="")
    used = resource.getrusage(resource.RUSAGE_SELF)
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    shares = dict(line.split()[:2] for line in rollup)
    own = sum(int(shares[f"Private_{kind}:"]) for kind in ("Clean", "Dirty"))
    told = {"cpu_s": used.ru_utime + used.ru_stime, "MB": own / 1000}
    os.write(int(os.environ[STARTING]), json.dumps(told).encode())


def one(forks: ForkServer | None) -> dict[str, float]:
    """A task in a new process, or in one of a fork server."""
    words, its = os.pipe()
    began = time.perf_counter()
    if forks is None:
        command = [sys.executable, "-m", MODULE, ONCE]
        environment = os.environ | {STARTING: str(its)}
        subprocess.run(command, env=environment, pass_fds=(its,), check=True)
    else:
        with token_file("token") as token:
            forks.start(["task"], [token, its]).wait()
    wall = time.perf_counter() - began
    os.close(its)
    with os.fdopen(words) as said:
        return {**json.loads(said.read()), "wall_s": wall}


def prepared(folder: Path) -> str:
    """A site and a packed task of ten steps from one network; the value of `TASK`."""
    from f2l_fed.local_training.config import Recipe
    from f2l_fed.wire.messages import Task
    from f2l_fed.wire.packing import pack_task
    from f2l_fed.wire.serialization import to_bytes
    from tests.support.sites import digits_site, frame

    task = Task(
        frame=frame(), anchor=None, round=1, release="", recipe=Recipe(steps=10), candidates=()
    )
    (packed := folder / "task").write_bytes(to_bytes(pack_task(task)))
    return f"{digits_site(folder / 'site')}{os.pathsep}{packed}"


def summary(name: str, found: list[dict[str, float]]) -> dict[str, Any]:
    """A row of the table."""
    return {"process": name} | {
        key: round(statistics.median(row[key] for row in found), 3) for key in found[0]
    }


def main() -> None:
    """Prints the table, or is one of the processes that it measures."""
    if sys.argv[1:2] in ([SERVE], [ONCE]):
        return worker()
    return table()


def worker() -> None:
    """Does what the process of a task does, or is a fork server of such."""
    # All that a task's process of the daemon has imported.
    importlib.import_module("clients.daemon.clientapp_main")
    if sys.argv[1] == ONCE:
        return answer()
    importlib.import_module("clients.daemon.fork_server").serve(int(sys.argv[2]), answer)
    return None


def table() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 tasks of each instead of 15")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    count, rows = 3 if asked.quick else 15, []
    with tempfile.TemporaryDirectory() as folder:
        for kind, work in (("nothing", ""), ("a task", prepared(Path(folder)))):
            os.environ[TASK] = work
            rows.append(summary(f"new, {kind}", [one(None) for _ in range(count)]))
            forks = ForkServer([sys.executable, "-m", MODULE])
            first = one(forks)
            rows.append(summary(f"forked, {kind}", [one(forks) for _ in range(count)]))
            rows[-1]["first_wall_s"] = round(first["wall_s"], 3)
            forks.end()
    columns = ("process", "cpu_s", "MB", "wall_s", "first_wall_s")
    print("| " + " | ".join(columns) + " |")
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    write_json(asked.json, {"count": count, "rows": rows})


if __name__ == "__main__":
    main()
