"""Jobs for the engines' processes, which find functions by the name of their module."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from f2l_fed.errors import DataError


def total(*numbers: int) -> int:
    return sum(numbers)


def process_of(_: object = None) -> int:
    return os.getpid()


def counted(most: int) -> Iterator[int]:
    yield from range(most)


def killed_once(mark: Path, most: int) -> Iterator[int]:
    """Counts; at 2 the process is killed unless the mark is there."""
    for number in range(most):
        if number == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        yield number


def killed() -> None:
    os.kill(os.getpid(), 9)


class OddError(OSError):
    """An error that can be pickled, and not read again."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}, {code}")


def failing(kind: str) -> None:
    if kind == "typed":
        raise DataError("no data", where="site.toml", remedy="Send some.")
    if kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full")
    if kind == "end":
        sys.exit(3)
    if kind == "odd":
        raise OddError("no room", 28)
    raise ZeroDivisionError("by nought")


def marked(folder: Path, _: str, sites: list[str], *_more: object) -> Iterator[tuple[str, None]]:
    """Stands for what makes the candidates of sites; a file has the number of its process."""
    (folder / str(os.getpid())).touch()
    for site in sites:
        yield site, None


def lasting(mark: Path) -> None:
    """Works until the process is ended."""
    mark.touch()
    while True:
        time.sleep(0.05)


def odd_sites() -> ClientApp:
    """An app: "query.count" counts a node's messages, "train.fail" fails, "train.die" is killed."""
    app = ClientApp()

    @app.query("count")
    def count(message: Message, context: Context) -> Message:
        seen = context.state.metric_records.setdefault("seen", MetricRecord({"n": 0}))
        seen["n"] = int(str(seen["n"])) + 1
        told = {"n": seen["n"], "partition": int(str(context.node_config["partition-id"]))}
        return Message(RecordDict({"told": MetricRecord(told)}), reply_to=message)

    @app.train("fail")
    def fail(message: Message, context: Context) -> Message:
        raise ZeroDivisionError("by nought")

    @app.train("die")
    def die(message: Message, context: Context) -> Message:
        os.kill(os.getpid(), 9)
        return message

    @app.query("where")
    def where(message: Message, context: Context) -> Message:
        told = {"pid": os.getpid(), "told": int(os.environ["F2L_TOLD"])}
        return Message(RecordDict({"told": MetricRecord(told)}), reply_to=message)

    return app
