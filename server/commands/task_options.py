"""The options of ``f2l-server init`` about the task, and the questions in their place."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from f2l_fed.errors import DataError, UsageError

LIKE, CLASSES, LABELS, SHARED = "--like", "--classes", "--labels", "--shared-labels"
_KEYS = ("target.", "shared_labels", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options about a federation's task.

    Args:
        like: Examples like those of the sites, whose shape and classes are taken; they are not
            kept.
        classes: Number of classes; with own labels the most that a site may have.
        labels: Names of shared classes in the order of the outputs.
        shared: Whether labels mean the same at every site; None where that is not said.
    """

    like: Path | None = None
    classes: int = 0
    labels: tuple[str, ...] = ()
    shared: bool | None = None

    @property
    def given(self) -> bool:
        """Whether any of them is given."""
        return self != TaskOptions()

    def settings(self) -> list[str]:
        """The settings that they stand for, ``key=value`` texts.

        Raises:
            DataError: If the examples can't be read.
            UsageError: If the options contradict each other.
        """
        found, names, classes = [], self.labels, self.classes
        if names and self.shared is False:
            raise UsageError(
                "names of own labels can't be agreed on", where=LABELS, expected=SHARED
            )
        shared = bool(self.shared or names)
        if self.like is not None:
            shape, known = _looks(self.like)
            found.append(f"target.input_shape={json.dumps(shape)}")
            classes = classes or len(names or known)
            numbered = known == tuple(map(str, range(len(known))))
            if shared and not names and not numbered:
                names = known
        classes = classes or len(names)
        if names and len(names) != classes:
            raise UsageError(
                "there is not one name for each class",
                where=LABELS,
                expected=f"{classes} names",
                got=str(len(names)),
            )
        if classes:
            found.append(f"target.classes={classes}")
        if shared:
            found.append("shared_labels=true")
        if names:
            found.append(f"labels={json.dumps(names, ensure_ascii=False)}")
        return found


def task_settings(
    options: TaskOptions, values: Mapping[str, Any], overrides: Sequence[str]
) -> list[str]:
    """The settings of a new federation's task, asked for in a terminal where nothing says them.

    Args:
        options: From the command line.
        values: The content of a configuration file.
        overrides: ``section.key=value`` texts from the command line.
    """
    said = any(key in values for key in ("target", "shared_labels", "labels"))
    said = said or any(text.startswith(_KEYS) for text in overrides)
    if options.given:
        return options.settings()
    if said or not at_terminal():
        return []
    return _asked()


def at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _asked() -> list[str]:
    """The answers of whoever sits at the terminal."""
    print("What is the federation for? It can be changed until the first site has registered.")
    like = typer.prompt("Examples like those of the sites (file or folder; empty: none)", "")
    found = []
    if not like:
        text = typer.prompt("Shape of one input, such as 1,28,28 or 12")
        parts = [part.strip() for part in text.replace("x", ",").split(",")]
        sizes = [int(part) for part in parts if part.isdecimal()]
        found.append(f"target.input_shape={json.dumps(sizes)}")
    shared = typer.confirm("Do labels mean the same at every site?")
    names = typer.prompt("Their names in order, with commas (empty: numbers)", "") if shared else ""
    labels = labels_of(names)
    classes = 0
    if not like and not labels:
        most = "Number of classes" if shared else "Most classes of one site"
        classes = typer.prompt(most, type=int)
    path = Path(like).expanduser() if like else None
    return found + TaskOptions(like=path, classes=classes, labels=labels, shared=shared).settings()


def labels_of(text: str) -> tuple[str, ...]:
    """The names in a text, which commas part, or that is a list in JSON.

    >>> labels_of("ok, scratch"), labels_of('["a,b", "c"]')
    (('ok', 'scratch'), ('a,b', 'c'))
    """
    if text.startswith("["):
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError("not a list of names", where=LABELS, expected='["…", "…"]', got=text)
        return tuple(names)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _looks(path: Path) -> tuple[list[int], tuple[str, ...]]:
    """The shape of one input of some examples, and the names of their classes."""
    # Loaded where it is needed: the readers take a second.
    import numpy as np

    from f2l_fed.data.readers.config import ReadingConfig
    from f2l_fed.data.readers.encoding_fit import fit_encoding
    from f2l_fed.data.readers.findings import Findings
    from f2l_fed.data.readers.reading import read_raw

    raw = read_raw(path.expanduser(), ReadingConfig())
    findings = Findings(raw.where)
    inputs = fit_encoding(raw, np.arange(len(raw)), ReadingConfig(), findings).encode(raw, findings)
    findings.require_none()
    if raw.labels is None or len(raw.labels.names) < 2:
        raise DataError(
            "all examples have the same label", where=str(path), expected="at least two classes"
        )
    return list(inputs.shape[1:]), raw.labels.names
