"""f2l-admin health."""

from __future__ import annotations

import typer

from server.commands.connection import call
from server.commands.output import AsJson, print_record


def health(context: typer.Context, as_json: AsJson = False) -> None:
    """Show whether each part of the server works; end with 1 if one does not."""
    from server.control import client as control_client

    found = call(context, control_client.parts)
    problems = call(context, control_client.health).problems
    text = ", ".join(f"{part} {'works' if well else 'is down'}" for part, well in found.items())
    record = {**found, **({"problems": list(problems)} if problems else {})}
    print_record("\n".join([text, *problems]), record, as_json)
    if not all(found.values()):
        raise typer.Exit(1)
