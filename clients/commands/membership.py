"""TODO."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clients.commands.console import AsJson, SiteFile, out, say
from f2l_fed.errors import UsageError


def init(
    kit: Annotated[
        Path, typer.Argument(metavar="KIT|DIR", help="The site's kit; without one, its folder.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Labelled examples: a file or a folder of images.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="The site's folder; one of its name if left out.")
    ] = None,
    name: Annotated[str, typer.Option(help="Without a kit, the site's name.")] = "",
) -> None:
    """Registers the site with its kit, once, and writes a commented site.toml."""
    from clients.onboarding.kit import read_kit
    from clients.onboarding.site_template import create_site, unpack
    from clients.site.sent_log import utc_now

    with_kit = kit.is_file()
    if not name and not kit.exists():
        raise UsageError("there is no such kit", where=str(kit), remedy="Check the path.")
    if with_kit == bool(name):
        raise UsageError(
            "a site has its name from its kit, or without a kit from --name",
            where=str(kit),
            expected="the file of a kit, or a folder and --name",
        )
    if with_kit:
        about = read_kit(kit, now=utc_now())
        say(f"kit of {about.site} for {about.server}, fingerprint {about.short_fingerprint}")
    if data is None:
        if not sys.stdin.isatty():
            raise UsageError("no data named", where="--data", expected="a file or a folder")
        data = Path(typer.prompt("Labelled examples (a file or a folder)")).expanduser()
    path = unpack(kit, into, data, now=utc_now()) if with_kit else create_site(kit, name, data)
    if with_kit:
        say("registered; the kit is used up and can be deleted")
    out.print(f"{path} is written. Next: f2l-site check {path}", highlight=False, soft_wrap=True)


def check(
    site_file: SiteFile,
    target: Annotated[str, typer.Option(help="Also checks that this network fits.")] = "",
    classes: Annotated[int, typer.Option(help="Outputs of that network.")] = 0,
    offline: Annotated[bool, typer.Option(help="Does not connect to the server.")] = False,
    as_json: AsJson = False,
) -> None:
    """Finds what would keep the site from taking part; nothing is sent."""
    from clients.onboarding.preflight import check as check_site

    report = check_site(site_file, target=target, classes=classes, connect=not offline)
    if as_json:
        print(json.dumps(asdict(report), indent=1))
    else:
        shape = "x".join(map(str, report.input_shape))
        counts = ", ".join(f"{label}: {count}" for label, count in report.per_class.items())
        if report.train:
            say(f"site {report.site}: {report.train} examples of shape {shape} to learn from")
            say(f"({counts}), {report.validation} to measure on")
        for remark in report.remarks:
            say(f"remark: {remark}")
        for problem in report.problems:
            say(f"problem: {problem}")
        if not report.problems:
            say("Nothing is wrong.")
    if report.problems:
        sys.exit(2)


def renew(
    site_file: SiteFile,
    keep_keys: Annotated[bool, typer.Option(help="Keeps the keys.")] = False,
) -> None:
    """Gets new keys and a new certificate; the old ones count no longer. The daemon does so too."""
    from clients.onboarding.enrolment import renew as renew_site
    from clients.onboarding.keys import certificate_of
    from clients.site.config import read_config
    from clients.site.sent_log import utc_now

    config, folder = read_config(site_file), site_file.parent
    renew_site(config, folder, now=utc_now(), new_keys=not keep_keys)
    end = certificate_of(folder / config.server.certificate).not_valid_after_utc
    say(f"renewed until {end:%Y-%m-%d}; a daemon that runs starts anew with it by itself")
