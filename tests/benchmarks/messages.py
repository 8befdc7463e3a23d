"""The cost of a message in each protocol: Flower objects, bytes, CPU of packing and SuperLink.

The SuperLink's part is Flower's own link state behind this project's intake, in this process: the
head of an answer, each of its objects, and the ServerApp's poll. Every object is besides one HTTP
request on its way to the SuperLink and one from there, which is not measured here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from f2l_fed.local_training.config import EpisodesConfig, HeadConfig, Recipe
from f2l_fed.targets import build_target
from f2l_fed.targets.layout import WeightLayout
from f2l_fed.wire.messages import NUMBERS, Frame, Task, Update
from f2l_fed.wire.packing import pack_task, pack_update, unpack_task, unpack_update
from f2l_fed.wire.reply_bound import reply_bound
from tests.benchmarks.common import write_json
from tests.support.messages import objects_of
from tests.support.small import rng
from tests.support.superlink_state import SuperLinkState, reply_to

EPISODES, SAMPLES = 4, 4
KINDS = ("prior", *(f"sample-{i}" for i in range(SAMPLES)))


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of federation: the part that is generated, and the body, if there is one."""

    name: str
    layout: WeightLayout
    body: WeightLayout | None
    protocol: int


def cases() -> list[Case]:
    """Whole networks in both protocols, heads on a body in the latest."""
    whole = build_target("cnn-xs", (1, 28, 28), 5).layout
    *body, weight, bias = zip(whole.names, whole.shapes, strict=True)
    head, shared = (
        WeightLayout(tuple(name for name, _ in part), tuple(shape for _, shape in part))
        for part in ([weight, bias], body)
    )
    return [
        Case("whole network", whole, None, 3),
        Case("whole network", whole, None, 4),
        Case("head on a body", head, shared, 4),
    ]


def rows(count: int, layout: WeightLayout, seed: int = 0) -> torch.Tensor:
    """(count, D) float32, random."""
    return torch.randn(count, layout.size, generator=rng(seed))


def task_of(case: Case) -> Task:
    """A task with all candidates: of every episode, or for the head of the site."""
    with_body = case.body is not None
    frame = Frame(
        lineage="cnn-xs/1",
        target="cnn-xs",
        classes=5,
        input_shape=(1, 28, 28),
        layout=case.layout.digest,
        episodes=EPISODES,
        shots=5,
        probe=Recipe(steps=10),
        adapt="head" if with_body else "all",
        body_layout=case.body.digest if case.body else "",
        episodic=EpisodesConfig() if with_body else None,
        head=HeadConfig() if with_body else None,
    )
    episodes = 1 if with_body else EPISODES
    kinds = KINDS[:1] if with_body else KINDS
    return Task(
        frame=frame,
        anchor=rows(1, case.body or case.layout, 7)[0],
        round=3,
        release="00002",
        recipe=Recipe(steps=15),
        candidates=tuple(
            dict(zip(kinds, rows(len(kinds), case.layout, episode), strict=True))
            for episode in range(episodes)
        ),
        body=rows(1, case.body, 8)[0] if case.body else None,
        chain=("ab" * 32,) * 2 if with_body else (),
        temperatures=((1, 0.45), (5, 0.55)) if with_body else (),
    )


def update_of(case: Case) -> Update:
    """The answer of a site to it."""
    return Update(
        site="site-000",
        round=3,
        chosen=("prior",) * EPISODES,
        weights=rows(EPISODES, case.layout, 9),
        probes=rows(EPISODES, case.layout, 10),
        numbers=dict.fromkeys(NUMBERS, 0.5),
        body=rows(1, case.body, 11)[0] if case.body else None,
    )


def cpu_ms(act: Callable[[], Any], count: int) -> float:
    """Median CPU milliseconds of a call."""
    spent = []
    for _ in range(count):
        began = time.process_time()
        act()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def superlink_ms(case: Case, content: RecordDict, count: int) -> float:
    """Median CPU milliseconds that the SuperLink's state takes for an answer."""
    spent = []
    for _ in range(count):
        link = SuperLinkState(reply_bound(case.layout, EPISODES, case.body))
        node = link.nodes[0]
        asked = link.ask(node)
        reply = reply_to(asked, content)
        parts = {id: part.deflate() for id, part in get_all_nested_objects(reply).items()}
        began = time.process_time()
        begun = link.begin(node, reply)
        for id in begun.objects_to_push:
            link.push(node, begun.session_id, id, parts[id])
        (head,) = link.heard(asked).values()
        for id in parts:
            link.state.object_store.get(id)
        link.state.object_store.delete(head.metadata.message_id)
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def size_of(content: RecordDict) -> int:
    """Bytes of all objects as they are sent."""
    return sum(len(one.deflate()) for one in get_all_nested_objects(content).values())


def measured(case: Case, count: int) -> dict[str, Any]:
    """A row of the table."""
    task, update = task_of(case), update_of(case)
    down = pack_task(task, protocol=case.protocol)
    up = pack_update(update, case.layout, body=case.body, protocol=case.protocol)
    return {
        "message": case.name,
        "protocol": case.protocol,
        "objects_down": objects_of(down),
        "objects_up": objects_of(up),
        "kB_down": round(size_of(down) / 1000, 1),
        "kB_up": round(size_of(up) / 1000, 1),
        "pack_task_ms": round(cpu_ms(lambda: pack_task(task, protocol=case.protocol), count), 2),
        "unpack_task_ms": round(cpu_ms(lambda: unpack_task(down), count), 2),
        "unpack_update_ms": round(
            cpu_ms(lambda: unpack_update(up, case.layout, body=case.body), count), 2
        ),
        "superlink_ms": round(superlink_ms(case, up, count), 2),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 messages instead of 100")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = [measured(case, 10 if asked.quick else 100) for case in cases()]
    print("| " + " | ".join(found[0]) + " |")
    for row in found:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    write_json(asked.json, {"episodes": EPISODES, "samples": SAMPLES, "rows": found})


if __name__ == "__main__":
    main()
