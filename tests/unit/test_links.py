"""The guides: every link, file, module, setting and command that they name exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "deploy")
    for path in folder.glob("*.md")
    if path.name != "CHANGELOG.md"
)
DEPLOYED = sorted(
    path
    for path in (ROOT / "deploy").rglob("*")
    if path.is_file() and path.suffix in {".sh", ".yaml", ".conf", ".service", ""}
)
PACKAGES = ("f2l_fed", "server", "clients", "tests")

LINK = re.compile(r"""\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)\"""")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?<![\w./-])((?:f2l_fed|server|clients|tests|docs|deploy)/[\w./-]*\w/?)")
MODULE = re.compile(rf"(?<![\w./-])((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?!\w|:\w|[\w(/-]*/)")
SETTING = re.compile(r"^([a-z]+)\.([a-z_]+)$")
COMMAND = re.compile(r"(?:^|\s|/bin/)(f2l-(?:admin|server|site))[ \t]+([a-z][^`#\n]*)")


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(text: str) -> str:
    """All that a page has in code spans and blocks, a piece a line."""
    blocks = [block for _, block in FENCE.findall(text)]
    return "\n".join([*blocks, *SPAN.findall(FENCE.sub("", text))])


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ +(.*)$", FENCE.sub("", path.read_text()), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        names.add(f"{plain}-{found[plain]}" if plain in found else plain)
        found[plain] = found.get(plain, 0) + 1
    return frozenset(names)


def missing_links(path: Path) -> Iterator[str]:
    for link in map("".join, LINK.findall(FENCE.sub("", path.read_text()))):
        place, _, anchor = link.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every name that a module defines, imports or lists."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return frozenset(names)


def is_module_or_member(dotted: str) -> bool:
    """Whether the longest part that is a module holds all names that follow."""
    place, rest = ROOT, dotted.split(".")
    while rest and (place / rest[0]).is_dir():
        place /= rest.pop(0)
    if rest and (place / f"{rest[0]}.py").is_file():
        place /= f"{rest.pop(0)}.py"
    elif (place / "__init__.py").is_file():
        place /= "__init__.py"
    return not rest or (place.is_file() and set(rest) <= names_in(place))


def missing_files(text: str) -> set[str]:
    """The files that a text names and that don't exist; NAME stands for any new one."""
    places = {name: ROOT / re.sub(r"NAME\.\w+$", "", name) for name in FILE.findall(text)}
    return {name for name, place in places.items() if not place.exists()}


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_link_of_a_page_leads_somewhere(path):
    assert list(missing_links(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_file_and_module_that_a_page_names_exists(path):
    code = code_of(path.read_text())
    assert missing_files(code) == set()
    assert {name for name in MODULE.findall(code) if not is_module_or_member(name)} == set()


@pytest.mark.parametrize("path", DEPLOYED, ids=page_id)
def test_every_file_that_a_deployment_names_exists(path):
    text = path.read_text()
    assert missing_files(text) == set()
    run = re.findall(r"python -m (server[\w.]+)", text)
    assert [name for name in run if not is_module_or_member(name)] == []


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_every_import_in_a_pages_python_exists(path):
    imported = [
        f"{node.module}.{alias.name}"
        for language, block in FENCE.findall(path.read_text())
        if language == "python"
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in PACKAGES
        for alias in node.names
    ]
    assert [name for name in imported if not is_module_or_member(name)] == []


def test_every_setting_that_a_page_names_exists():
    from f2l_fed.config import FederationConfig

    known = FederationConfig().to_json()
    wrong = {
        (page_id(path), span)
        for path in PAGES
        for span in SPAN.findall(FENCE.sub("", path.read_text()))
        if (found := SETTING.match(span.partition(" =")[0]))
        and isinstance(known.get(found[1]), dict)
        and found[2] not in known[found[1]]
        and not (ROOT / "f2l_fed" / found[1] / f"{found[2]}.py").exists()
        and found[2] not in {"started", "finished", "failed", "fetched", "toml", "json", "py"}
    }
    assert wrong == set()


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    """The installed commands by name, as their entry points would run them."""
    found: dict[str, click.Command] = {}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    with pytest.MonkeyPatch.context() as patch:
        for name, entry in scripts.items():
            module, _, function = entry.partition(":")
            patch.setattr(
                typer.Typer,
                "__call__",
                lambda app, name=name: found.__setitem__(name, typer.main.get_command(app)),
            )
            getattr(importlib.import_module(module), function)()
    return found


def unknown_words(command: Any, words: list[str]) -> Iterator[str]:
    """The subcommands and options in a line that the command doesn't have."""
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for at, word in enumerate(words):
        if word.startswith("--"):
            if word.partition("=")[0] not in {*options, "--help"}:
                yield word
        elif hasattr(command, "commands") and word[0].isalpha():
            for name in word.split("|"):
                if name not in command.commands:
                    yield name
                else:
                    yield from unknown_words(command.commands[name], words[at + 1 :])
            return


def command_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each command that a page shows, with the words that follow it."""
    if path in DEPLOYED:
        text = path.read_text()
    else:
        text = re.sub(r" +# .*$", "", code_of(path.read_text()), flags=re.MULTILINE)
    for name, line in COMMAND.findall(text.replace("\\\n#", " ").replace("\\\n", " ")):
        yield name, shlex.split(re.split(r"[<>&…;]", line)[0], posix=False)


@pytest.mark.parametrize("path", [*PAGES, *DEPLOYED], ids=page_id)
def test_every_command_that_a_page_names_exists(path, commands):
    wrong = {
        f"{name} {' '.join(words)}: {word}"
        for name, words in command_lines(path)
        for word in unknown_words(commands[name], words)
    }
    assert wrong == set()
