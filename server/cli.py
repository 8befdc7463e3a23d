"""The entry points of f2l-admin and f2l-server.

Commands are imported once Ctrl-C is answered: that takes a second on a slow machine.
"""

from __future__ import annotations

import os

from f2l_fed.core.command_line import run_program


def admin() -> None:
    """Entry point of f2l-admin."""
    run_program(_admin)


def server() -> None:
    """Entry point of f2l-server."""
    run_program(_server)


def _admin() -> None:
    # gRPC would print lines of its own beside the sentence about a server that can't be reached.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from server.commands.admin import app

    app()


def _server() -> None:
    from server.commands.server import app

    app()
