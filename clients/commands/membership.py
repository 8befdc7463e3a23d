"""Commands for a site's membership: register it, check it, renew its keys."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clients.commands.console import AsJson, SiteFile, out, say
from f2l_fed.core.command_line import interruption_told
from f2l_fed.core.wording import number_of
from f2l_fed.errors import F2LError, UsageError

if TYPE_CHECKING:
    from f2l_fed.wire.kit import Kit


@interruption_told(
    "a registration that the server has taken already is finished by the same command"
)
def init(
    kit: Annotated[
        Path,
        typer.Argument(metavar="KIT|DIR", help="The site's kit; without one, the site's folder."),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Read labelled examples from this file or folder.")
    ] = None,
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Name their column of labels.")] = "",
    text: Annotated[
        str, typer.Option(metavar="COLUMN", help="Name their column of texts that are the inputs.")
    ] = "",
    resize: Annotated[str, typer.Option(metavar="W,H", help="Resize their images to this.")] = "",
    into: Annotated[
        Path | None, typer.Option(help="Create this folder; by default one of the site's name.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name the site, where there is no kit.")] = "",
    fingerprint: Annotated[
        str,
        typer.Option(help="Compare the kit with the administrator's fingerprint."),
    ] = "",
    network: Annotated[
        str,
        typer.Option(
            metavar="NETWORK",
            help="Run this code for the kit's backbone: module:factory or timm:NAME.",
        ),
    ] = "",
) -> None:
    """Register the site with its kit, once, and write a commented site.toml."""
    from clients.onboarding.kit import read_kit
    from clients.onboarding.site_template import create_site, register_site
    from clients.site.sent_log import utc_now
    from f2l_fed.data.readers.config import sizes_of

    with_kit = kit.is_file()
    if not with_kit and not name and kit.is_dir() and sys.stdin.isatty():
        name = typer.prompt("Name of the site")
    if not name and not kit.exists():
        raise UsageError("the kit does not exist", where=str(kit), remedy="Check the path.")
    if with_kit == bool(name):
        raise UsageError(
            "the site's name comes either from its kit or from --name",
            where=str(kit),
            expected="the file of a kit, or a folder and --name",
        )
    if into is not None and not with_kit:
        raise UsageError(
            "without a kit the folder is named once",
            where="--into",
            remedy="Give the folder in place of the kit.",
        )
    read = read_kit(kit, now=utc_now()) if with_kit else None
    if read:
        _compare(read, kit, fingerprint)
    if data is None:
        if not sys.stdin.isatty():
            raise UsageError("the option is missing", where="--data", expected="a file or a folder")
        data = Path(typer.prompt("Labelled examples (a file or a folder)")).expanduser()
    if network and not (read and read.backbone):
        raise UsageError(
            "the kit has no backbone, whose network could be named",
            where="--network",
            remedy="Name file and network under [backbone] in site.toml.",
        )
    size = sizes_of(resize, "--resize")
    if read:
        path, agreement = register_site(
            read, kit, into, data, network=network, label=label, text=text, resize=size
        )
        say("registered; the kit is used up and can be deleted")
        if read.backbone and not network:
            say(f"its backbone is in {path.parent}: name the code that takes it in [backbone]")
        if agreement:
            say(f"the federation is for {agreement.about()}")
    else:
        path = create_site(kit, name, data, label=label, text=text, resize=size)
    out.print(f"{path} is written. Next: f2l-site check {path}", highlight=False, soft_wrap=True)


def _compare(kit: Kit, path: Path, fingerprint: str) -> None:
    """Ends the command unless the kit has the administrator's fingerprint."""
    if fingerprint:
        kit.require_fingerprint(fingerprint, where=str(path))
    say(f"kit of {kit.site} for {kit.server}, fingerprint {kit.short_fingerprint}")
    if fingerprint:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "the kit's fingerprint has not been compared",
            where=str(path),
            remedy="Give the one that the administrator has told, with --fingerprint.",
        )
    if not typer.confirm("Compare it with the administrator's. Go on?"):
        raise F2LError(
            "the fingerprint was not confirmed, so nothing was sent or written", where=str(path)
        )


def check(
    site_file: SiteFile,
    target: Annotated[str, typer.Option(help="Check that this network fits, too.")] = "",
    classes: Annotated[int, typer.Option(help="Expect this number of outputs.")] = 0,
    offline: Annotated[bool, typer.Option(help="Do not connect to the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find every obstacle to taking part, also in the federation's task; nothing is sent."""
    from clients.onboarding.preflight import check as check_site
    from clients.training.agreed_task import differences

    report = check_site(
        site_file, target=target, classes=classes, connect=not offline, compare=differences
    )
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        shape = "x".join(map(str, report.input_shape))
        counts = ", ".join(f"{label}: {count}" for label, count in report.per_class.items())
        if report.train:
            count = number_of(report.train, "example")
            say(f"site {report.site}: {count} of shape {shape} to learn from")
            say(f"({counts}), {report.validation} to measure on")
        if report.federation:
            say(f"the federation is for {report.federation}")
        for remark in report.remarks:
            say(f"remark: {remark}")
        for problem in report.problems:
            say(f"problem: {problem}")
        if not report.problems:
            say("Nothing is wrong.")
    if report.problems:
        sys.exit(2)


@interruption_told("a renewal that has begun is finished by the same command, or the daemon")
def renew(
    site_file: SiteFile,
    keep_keys: Annotated[bool, typer.Option(help="Keep the keys.")] = False,
) -> None:
    """Replace keys and certificate; the old ones are revoked. The daemon does so in time too."""
    from clients.onboarding.enrolment import renew as renew_site
    from clients.onboarding.keys import read_certificate
    from clients.site.sent_log import utc_now
    from clients.site.site_folder import SiteFolder

    site = SiteFolder.read(site_file)
    renew_site(site, now=utc_now(), new_keys=not keep_keys)
    end = read_certificate(site.path / site.server.certificate).not_valid_after_utc
    say(f"renewed until {end:%Y-%m-%d}; a running daemon takes it up by itself")
