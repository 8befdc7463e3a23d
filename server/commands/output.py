"""Printing of a command's result: JSON for programs, a sentence or a table for people."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from f2l_fed.core.terminal import console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_record(text: str, record: dict[str, Any], as_json: bool) -> None:
    """Prints a record, for people as a text that says the same."""
    print(json.dumps(record, indent=1) if as_json else text)


def print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    """Prints records: JSON with all their fields, or a table with some of them."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    console().print(table)


def _cell(value: Any) -> str:
    """Lists and tables of names as their number, everything else as it is."""
    return str(len(value)) if isinstance(value, tuple | list | dict) else str(value)
