"""The options that every program has before its commands: --version and --debug."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import f2l_fed
from f2l_fed.core.command_line import DEBUG_VARIABLE


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        print(context.find_root().info_name, f2l_fed.__version__)
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ[DEBUG_VARIABLE] = "1"


Version = Annotated[
    bool,
    typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_debug)
]


def shared_options(version: Version = False, debug: Debug = False) -> None:
    """Takes the options of a program that has no others before its commands."""
