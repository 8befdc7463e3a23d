"""The options of ``f2l-server init`` about the task, and the questions in their place."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.labels import label_key
from f2l_fed.errors import DataError, UsageError

LIKE, LABEL, RESIZE, CLASSES = "--like", "--label", "--resize", "--classes"
LABELS, SHARED = "--labels", "--shared-labels"
_KEYS = ("target.", "shared_labels", "labels", "features")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """The options about a federation's task.

    Args:
        like: Examples like those of the sites, whose shape and classes are taken; they are not
            kept.
        label: Name of their column, or array, of labels; "" where it is found out.
        resize: Width and height that their images get; none keeps their own.
        classes: Number of classes; with own labels the most that a site may have.
        labels: Names of shared classes in the order of the outputs.
        shared: Whether labels mean the same at every site; None where that is not said.
    """

    like: Path | None = None
    label: str = ""
    resize: tuple[int, ...] = ()
    classes: int = 0
    labels: tuple[str, ...] = ()
    shared: bool | None = None

    @property
    def given(self) -> bool:
        """Whether any of them is given."""
        return self != TaskOptions()

    def settings(self) -> list[str]:
        """The settings that they stand for, ``key=value`` texts; remarks on examples are printed.

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
        for option, value in ((LABEL, self.label), (RESIZE, self.resize)):
            if value and self.like is None:
                raise UsageError("there are no examples to take it of", where=option, expected=LIKE)
        if self.like is not None:
            shape, known, features = _looks(
                self.like, ReadingConfig(label=self.label, resize=self.resize)
            )
            if features:
                found.append(f"features={json.dumps(features, ensure_ascii=False)}")
            self._require_agreeing(known)
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

    def _require_agreeing(self, known: tuple[str, ...]) -> None:
        """Raises UsageError if examples with these labels are not what the options say."""
        if 0 < self.classes < len(known):
            raise UsageError(
                "the examples have more classes",
                where=CLASSES,
                expected=f"at least {len(known)}, as in {self.like}",
                got=str(self.classes),
            )
        keys = set(map(label_key, self.labels))
        missing = [name for name in known if label_key(name) not in keys]
        if self.labels and missing:
            raise UsageError(
                "the examples have labels that are not named",
                where=LABELS,
                expected=f"also {', '.join(missing)}, as in {self.like}",
                got=", ".join(self.labels),
            )


def task_settings(
    options: TaskOptions, values: Mapping[str, Any], overrides: Sequence[str]
) -> list[str]:
    """The settings of a new federation's task, asked for in a terminal where nothing says them.

    Args:
        options: From the command line.
        values: The content of a configuration file.
        overrides: ``section.key=value`` texts from the command line.
    """
    said = any(key in values for key in ("target", "shared_labels", "labels", "features"))
    said = said or any(text.startswith(_KEYS) for text in overrides)
    if options.given:
        found = options.settings()
        if options.shared and not _says_classes([*overrides, *found], values):
            raise UsageError(
                "the number of classes that the sites share is not said",
                where=SHARED,
                expected=f"with {LABELS}, {CLASSES} or {LIKE}",
            )
        return found
    if said or not at_terminal():
        return []
    return _asked()


def _says_classes(settings: Sequence[str], values: Mapping[str, Any]) -> bool:
    target = values.get("target")
    in_file = isinstance(target, dict) and "classes" in target
    return in_file or any(text.startswith("target.classes=") for text in settings)


def at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _asked() -> list[str]:
    """The answers of whoever sits at the terminal."""
    print("What is the federation for? It can be changed until the first site has registered.")
    like = typer.prompt("Examples like those of the sites (file or folder; empty: none)", "")
    found = []
    if not like:
        asked = "Shape of one input: channels, height and width such as 1,28,28, or 12"
        sizes = typer.prompt(asked, value_proc=_shape_of)
        found.append(f"target.input_shape={json.dumps(sizes)}")
    shared = typer.confirm("Do labels mean the same at every site?")
    names = typer.prompt("Their names in order, with commas (empty: numbers)", "") if shared else ""
    labels = labels_of(names)
    classes = 0
    if not like and not labels:
        most = "Number of classes" if shared else "Most classes of one site"
        classes = typer.prompt(most, value_proc=_count_of)
    path = Path(like).expanduser() if like else None
    return found + TaskOptions(like=path, classes=classes, labels=labels, shared=shared).settings()


def _shape_of(text: str) -> list[int]:
    """The sizes in a text, three of an image or the one of a vector; else it is asked again."""
    parts = [part.strip() for part in text.replace("x", ",").split(",")]
    whole = all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts)
    if not whole or len(parts) not in (1, 3):
        raise typer.BadParameter(
            f"not the shape of an image or a vector: expected 1,28,28 or 12, got {text}."
        )
    return [int(part) for part in parts]


def _count_of(text: str) -> int:
    """The number of classes in a text, at least 2; else it is asked again."""
    if not (text.isascii() and text.isdecimal() and int(text) >= 2):
        raise typer.BadParameter(f"not a number of classes: expected at least 2, got {text}.")
    return int(text)


def labels_of(text: str) -> tuple[str, ...]:
    """The names in a text, which commas part, or that is a list in JSON; none in an empty one.

    Raises:
        UsageError: If it is no list, or a name is empty.

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
    else:
        names = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(name.strip() for name in names):
        raise UsageError("a name is empty", where=LABELS, expected="A,B,…", got=text)
    return tuple(names)


def _looks(
    path: Path, reading: ReadingConfig
) -> tuple[list[int], tuple[str, ...], tuple[str, ...]]:
    """The shape of one input of some examples, and the names of classes and of table features.

    Prints what the reader remarks, and the settings that make the features again.
    """
    # Loaded where it is needed: the readers take a second.
    import numpy as np

    from f2l_fed.data.readers.agreed_settings import (
        LONGEST_FEATURE,
        MOST_FEATURES,
        agreed_settings,
    )
    from f2l_fed.data.readers.encoding_fit import fit_encoding
    from f2l_fed.data.readers.findings import Findings
    from f2l_fed.data.readers.reading import read_raw

    raw = read_raw(path.expanduser(), reading)
    findings = Findings(raw.where)
    encoding = fit_encoding(raw, np.arange(len(raw)), reading, findings)
    inputs = encoding.encode(raw, findings)
    findings.require_none()
    if raw.labels is None or len(raw.labels.names) < 2:
        raise DataError(
            "all examples have the same label", where=str(path), expected="at least two classes"
        )
    for remark in (*raw.remarks, *findings.remarks):
        print(f"remark: {remark}")
    features = encoding.features if encoding.is_table else ()
    if features:
        print("every site needs the same features in the same order: a new one has these settings")
        print("in its site.toml, an older one can take them over:\n[data]")
        print("\n".join(agreed_settings(features)))
    if len(features) > MOST_FEATURES or any(len(name) > LONGEST_FEATURE for name in features):
        print("remark: the names are too many or too long to be compared by f2l-site check")
        features = ()
    return list(inputs.shape[1:]), raw.labels.names, features
