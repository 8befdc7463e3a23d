"""The three programs: version, completion and help in the imperative."""

from __future__ import annotations

import re

import pytest
import typer
from click import Command, Group, Option

import f2l_fed
from clients.commands.program import app as site_app
from server.commands.admin import app as admin_app
from server.commands.server import app as server_app
from tests.support.commands import in_process

APPS = {"f2l-admin": admin_app, "f2l-server": server_app, "f2l-site": site_app}
NOT_IMPERATIVE = re.compile(
    r"(The|A|An|This|All|Each|Also|Only|Number|Name of|Without|With|Where|Whether|Labelled)\b"
    r"|\w+(ing|ed|s)\b(?<!Address)"
)


def commands(command: Command, path: str) -> list[tuple[str, Command]]:
    below = command.commands if isinstance(command, Group) else {}
    return [(path, command)] + [
        found for name, one in below.items() for found in commands(one, f"{path} {name}")
    ]


@pytest.mark.parametrize("name", APPS)
def test_every_command_and_option_says_in_the_imperative_what_it_does(name):
    wrong = []
    for path, command in commands(typer.main.get_command(APPS[name]), name):
        texts = [(path, command.help or "")]
        for option in command.params:
            if isinstance(option, Option):
                texts.append((f"{path} {option.opts[0]}", option.help or ""))
        wrong += [(where, text) for where, text in texts if not text]
        wrong += [(where, text) for where, text in texts if NOT_IMPERATIVE.match(text)]
    assert wrong == []


@pytest.mark.parametrize("name", APPS)
def test_the_version_is_shown(name):
    done = in_process(name, "--version")
    assert (done.returncode, done.stdout) == (0, f"{name} {f2l_fed.__version__}\n")


@pytest.mark.parametrize(
    ("name", "begun", "offered"),
    [
        ("f2l-admin", "round wa", "watch"),
        ("f2l-server", "ident", "identity"),
        ("f2l-site", "doc", "doctor"),
    ],
)
def test_a_shell_completes_commands(monkeypatch, name, begun, offered):
    monkeypatch.setenv(f"_{name.upper().replace('-', '_')}_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"{name} {begun}")
    monkeypatch.setenv("COMP_CWORD", str(len(begun.split())))
    done = in_process(name)
    assert (done.returncode, done.stdout.split()) == (0, [offered])
