"""The text of ``federation.toml``: every key with its meaning, defaults as comments."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from f2l_fed.config import FederationConfig
from server.federation.server_settings import ServerSettings

_HEAD = """\
# A federation. A line with "# " before a key shows its default.
# Edit the file and start the server again. seed, shared_labels, labels, [target] and [probe] are
# fixed once a site has registered: networks of different ones can't be compared.
"""


def settings_text(settings: ServerSettings, config: FederationConfig) -> str:
    """The content of ``federation.toml`` for these settings."""
    lines = [_HEAD, *_plain_keys(config, FederationConfig())]
    lines += ["", "[server]", *_plain_keys(settings, ServerSettings(), shown=("address", "listen"))]
    lines += _sections(config, FederationConfig(), "")
    return "\n".join(lines) + "\n"


def _sections(values: Any, defaults: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(values):
        value, default = getattr(values, field.name), getattr(defaults, field.name)
        if dataclasses.is_dataclass(value):
            yield from ("", f"[{prefix}{field.name}]")
            if meaning := _meanings(type(values)).get(field.name):
                yield from _comment(meaning)
            yield from _plain_keys(value, default)
            yield from _sections(value, default, f"{prefix}{field.name}.")


def _plain_keys(values: Any, defaults: Any, shown: tuple[str, ...] = ()) -> Iterator[str]:
    meanings = _meanings(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            continue
        yield from _comment(meanings.get(field.name, ""))
        line = f"{field.name} = {_toml(value)}"
        same = value == getattr(defaults, field.name) and field.name not in shown
        yield f"# {line}" if same else line


def _toml(value: Any) -> str:
    """A value as TOML, whose strings, numbers and lists are JSON's too."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key, ensure_ascii=False)} = {_toml(v)}" for key, v in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> Iterator[str]:
    words, line = text.split(), "#"
    for word in words:
        if len(line) + len(word) > 98:
            yield line
            line = "#"
        line += f" {word}"
    if words:
        yield line


def _meanings(kind: type) -> dict[str, str]:
    """The meaning of each field, from the ``Args`` of a dataclass's docstring."""
    documented = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    return {
        name: " ".join(text.split())
        for name, text in re.findall(r"^    (\w+): ((?:.|\n {8,})*)", documented, re.M)
    }
