"""f2l-server: a federation's folder, its central service, and its identities."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from f2l_fed.core.command_line import interruption_told
from f2l_fed.core.command_options import shared_options

app = typer.Typer(
    name="f2l-server",
    help="Run the central service of a federation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
identity = typer.Typer(
    help="Issue, renew and revoke identities for the control service.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(shared_options)
app.add_typer(identity, name="identity")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The federation's folder.")]
Name = Annotated[str, typer.Argument(help="Name of the identity.")]
Days = Annotated[int, typer.Option(help="Let the certificate expire after this many days.")]


@app.command()
def init(
    folder: Folder,
    config: Annotated[
        Path | None, typer.Option(help="Read this configuration (TOML) instead of the defaults.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting."),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Take shape and classes of these examples; nothing else is kept."),
    ] = None,
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="Name these examples' column of labels.")
    ] = "",
    resize: Annotated[
        str, typer.Option(metavar="W,H", help="Resize these examples' images to this.")
    ] = "",
    classes: Annotated[
        int,
        typer.Option(min=0, help="Expect this many classes; of own labels, at one site."),
    ] = 0,
    labels: Annotated[
        str, typer.Option(metavar="A,B,…", help="Name the shared labels, in their order.")
    ] = "",
    shared_labels: Annotated[
        bool | None,
        typer.Option(
            "--shared-labels/--own-labels",
            help="Share the labels among sites, or not.",
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Let sites reach the server here.")
    ] = "",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Listen for sites here.")
    ] = "",
    control: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Listen for f2l-admin here.")
    ] = "",
) -> None:
    """Create a federation: settings, zoo, releases, a certificate authority and two identities."""
    from f2l_fed.data.readers.config import sizes_of
    from server.commands.task_options import (
        CLASSES,
        LIKE,
        RESIZE,
        TaskOptions,
        labels_of,
        task_settings,
    )
    from server.federation import settings
    from server.federation.agreement import agreement_of
    from server.pki.certificate_store import create_authority, issue
    from server.pki.revocation import revoke

    given = {"address": address, "listen": listen, "control": control}
    named = {key: value for key, value in given.items() if value}
    where = str(config) if config else "the command line"
    values = settings.read_values(config)
    options = TaskOptions(
        like=like,
        label=label,
        resize=sizes_of(resize, RESIZE),
        classes=classes,
        labels=labels_of(labels),
        shared=shared_labels,
    )
    task = task_settings(options, values, set_ or [])
    federation, chosen = settings.create(folder, values, [*task, *(set_ or [])], named, where)
    certificates = folder / "certificates"
    create_authority(certificates)
    issue(certificates, "server", "server", hosts=(chosen.host,))
    issue(certificates, "admin", "admin")
    revoke(certificates, ())
    target = federation.target
    print(f"{folder}: a federation for {target.name}, {target.layout.size} parameters")
    print(f"it is for {agreement_of(federation).about()}")
    print(
        f"until the first site registers, that can be changed in {settings.SETTINGS_FILE}; "
        f"{LIKE} and {CLASSES} of f2l-server init say it from the start"
    )
    print(f"settings are in {folder / settings.SETTINGS_FILE}")
    print(f"identities of server and admin are in {certificates}")
    print(f"Next: f2l-server run {folder}")


@app.command()
def run(folder: Folder) -> None:
    """Run SuperLink, TLS gateway, enrolment, control and dashboard until a signal ends them."""
    from server.supervision.supervisor import central

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)

    async def serve() -> None:
        stop = asyncio.Event()
        working = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def end() -> None:
            # While parts still start, nothing waits for the event yet.
            if not up and working is not None:
                working.cancel()
            stop.set()

        up = False
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        async with central(folder) as addresses:
            up = True
            print(f"sites      {addresses.sites or 'through the external gateway'}", flush=True)
            print(f"control    {addresses.control}", flush=True)
            print(f"dashboard  http://127.0.0.1:{addresses.dashboard}/", flush=True)
            await stop.wait()
            print("ending; the next start takes up a round that is under way", flush=True)

    with interruption_told("the server had not started; nothing of it runs"):
        try:
            asyncio.run(serve())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


@identity.command(name="add")
def add_identity(
    folder: Folder,
    name: Name,
    role: Annotated[
        str, typer.Option(help="Give the identity this role: viewer or admin.")
    ] = "viewer",
    days: Days = 365,
) -> None:
    """Issue an identity, a folder to hand over as a whole."""
    from f2l_fed.errors import UsageError
    from server.pki.certificate_store import issue
    from server.pki.identity import Role

    roles: dict[str, Role] = {"viewer": "viewer", "admin": "admin"}
    if role not in roles:
        raise UsageError("unknown role", expected="viewer or admin", got=role)
    made = issue(folder / "certificates", name, roles[role], days=days)
    print(f"{made}: {role}; hand the folder over and delete it here")


@identity.command(name="renew")
def renew_identity(folder: Folder, name: Name, days: Days = 365) -> None:
    """Make a new key and certificate; revoke the old one of an admin or a viewer."""
    from server.federation import settings
    from server.pki.certificate_store import replace_identity
    from server.pki.identity import Credentials
    from server.pki.revocation import revoke

    certificates = folder / "certificates"
    before = Credentials.read(certificates / name)
    hosts = (settings.read_settings(folder).host,) if before.role == "server" else ()
    replace_identity(certificates, name, days=days, hosts=hosts)
    if before.role == "server":
        print(f"{name} is renewed; the gateway uses it at once, f2l-server at its next start")
        return
    revoke(certificates, [before.serial])
    print(f"{name} is renewed and the old certificate revoked; hand the folder over again")


@identity.command(name="revoke")
def revoke_identity(
    folder: Folder,
    name: Name,
    certificate: Annotated[
        Path | None,
        typer.Option(help="Read the certificate from this file, if its folder is gone."),
    ] = None,
) -> None:
    """Revoke a certificate; its holder's next call is refused."""
    from f2l_fed.wire.enrolment import CERTIFICATE
    from server.pki.identity import read_certificate
    from server.pki.revocation import revoke

    certificates = folder / "certificates"
    path = certificate or certificates / name / CERTIFICATE
    revoke(certificates, [read_certificate(path, name).serial_number])
    print(f"{name} is revoked")
