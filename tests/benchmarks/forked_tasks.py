"""The daemons' launcher of a site's tasks for either arm of `tests.benchmarks.overhead`.

    python -m tests.benchmarks.forked_tasks ARM superexec|clientapp [ARGUMENTS…]

The first is a ``flower-superexec`` that has tasks forked, the second its fork server.
"""

from __future__ import annotations

import sys
from functools import partial

from clients.daemon.superexec_main import ForkingExecutor
from f2l_fed.flower import superexec

_HERE = "tests.benchmarks.forked_tasks"


def main() -> None:
    """See the module."""
    _, arm, part, *arguments = sys.argv
    sys.argv = [part, *arguments]
    if part == "superexec":
        command = [sys.executable, "-m", _HERE, arm, "clientapp"]
        superexec.main(partial(ForkingExecutor, command=command))
        return
    from clients.daemon import clientapp_main

    if arm == "fedavg":
        from tests.benchmarks import overhead

        clientapp_main.app = overhead.fedavg_app
    clientapp_main.main()


if __name__ == "__main__":
    main()
