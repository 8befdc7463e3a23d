"""f2l-server: a federation's folder, its control service and its dashboard."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from f2l_fed.config import load_config

app = typer.Typer(
    name="f2l-server",
    help="Runs the central service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The federation's folder.")]


@app.command()
def init(
    folder: Folder,
    config: Annotated[
        Path | None, typer.Option(help="Configuration (TOML); the defaults if left out.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one setting."),
    ] = None,
) -> None:
    """Lays out a federation: zoo, releases, a certificate authority and two identities."""
    from server.federation import Federation
    from server.provision import create_authority, issue

    federation = Federation.create(folder, load_config(config, set_ or []))
    certificates = folder / "certificates"
    create_authority(certificates)
    issue(certificates, "server", "server", hosts=("localhost", "127.0.0.1"))
    issue(certificates, "admin", "admin")
    target = federation.target
    print(f"{folder}: a federation for {target.name}, {target.layout.size} parameters")
    print(f"identities of server and admin are in {certificates}")


@app.command()
def run(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the control service; 0 for any.")] = 8770,
    dashboard_port: Annotated[
        int, typer.Option(help="Port of the dashboard, on loopback only; 0 for any.")
    ] = 8765,
) -> None:
    """Serves control (gRPC, mutual TLS) and dashboard until it is told to end."""
    from server.dashboard.app import serve_dashboard
    from server.federation import Federation
    from server.service import serve

    Federation.open(folder)

    async def both() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with (
            serve(folder, folder / "certificates", host, port) as control,
            serve_dashboard(folder, dashboard_port) as page,
        ):
            print(f"control    {host}:{control}", flush=True)
            print(f"dashboard  http://127.0.0.1:{page}/", flush=True)
            await stop.wait()

    asyncio.run(both())
