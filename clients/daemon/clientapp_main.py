"""The ``flwr-clientapp`` of a site's daemon: answers one message with the installed code.

A Flower server sends its app along with every run, and Flower's own command imports it. An attacker
who controls the server could run any program beside the private data, whatever the site's policy.
This command takes the message and ignores the app that was sent. As a fork server it imports all
that a task needs once, and forks a process for each.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable

from flwr.clientapp import ClientApp
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from clients.client_app import APP, app
from clients.daemon.fork_server import serve
from clients.daemon.forked_process import SERVE
from f2l_fed.flower.runtime_client import begin_task


def _installed(**_: object) -> Callable[[str, str, str], ClientApp]:
    return lambda *_: app


def _ignored(*sent: object, **_: object) -> None:
    """Replaces Flower's installation of the app that was sent: notes its hash alone."""
    if sent and isinstance(sent[0], bytes):
        os.environ[APP] = hashlib.sha256(sent[0]).hexdigest()


def answer() -> None:
    """Answers one message, with the arguments of ``flwr-clientapp``."""
    os.environ.pop(APP, None)
    replaced: dict[str, object] = {
        "get_load_client_app_fn": _installed,
        "install_from_fab": _ignored,
        "get_project_dir": _ignored,
    }
    for name, replacement in replaced.items():
        if not hasattr(run_clientapp, name):
            sys.exit(f"this version of Flower has no {name}; nothing is run")
        setattr(run_clientapp, name, replacement)
    begin_task(run_clientapp)
    flwr_clientapp()


def main() -> None:
    """Answers one message, or is a fork server of processes that answer one each."""
    if sys.argv[1:2] == [SERVE]:
        serve(int(sys.argv[2]), answer)
    answer()


if __name__ == "__main__":
    main()
