"""The entry point of f2l-site.

Commands are imported once Ctrl-C is answered: that takes a second on a slow machine.
"""

from __future__ import annotations

from f2l_fed.core.command_line import run_program


def site() -> None:
    """Entry point of f2l-site."""
    run_program(_site)


def _site() -> None:
    from clients.commands.program import app

    app()


if __name__ == "__main__":
    site()
