"""The central side of one round with many sites: CPU by stage, memory, and growth by doublings.

`python -m tests.benchmarks.scale [--sites N] [--doublings K] [--recorded M] [--most R]
[--json OUT.json]`

M real sites conduct two rounds, and what they send in the second is recorded. Then that round is
conducted again with N/2^K to N sites: check-in, candidates, packing, Flower's messages as bytes,
screening, zoo, journal, retraining and gate are those of a server, in one process on one thread.
Only the training of the sites is replaced: each answers as one of the recorded sites has, from the
start that it is sent, with noise of its own. The CPU of the answers themselves is not counted, nor
that of the SuperLink (`tests.benchmarks.messages`) and of Ray.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Wire
from torch import Tensor

from clients.client_app import app as honest_app
from f2l_fed.config import RoundConfig, load_config
from f2l_fed.events import RETRAINING_STARTED
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.wire.messages import PROBE_ACTION, ProbeReply, Update
from f2l_fed.wire.packing import (
    pack_probe_reply,
    pack_update,
    unpack_probe_reply,
    unpack_task,
    unpack_update,
)
from f2l_fed.zoo import Zoo
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.rounds import exchange, ingest
from server.rounds.check_in import CheckIn
from server.rounds.coordinator import Coordinator
from server.rounds.messaging import Messenger
from server.rounds.round_exchange import RoundExchange
from server.rounds.run_cache import RunCache
from server.rounds.screening import Screening
from server.simulation.setup import Simulation, prepare
from tests.benchmarks.common import SEPARATE, memory_mib, write_json
from tests.support.inline import InlineBackend, conductor, nodes
from tests.support.loopback import LoopbackGrid

SETTINGS = (
    *SEPARATE,
    "target.name=mlp",
    *("split.shots=20", "split.test_per_class=10", "split.validation_per_class=5"),
    *("gate.min_explained=-100", "gate.min_conditioning=-100"),
    *("gate.min_dispersion=0", "gate.max_dispersion=100"),
)
SITES_PER_TASK = 16
"""As in `server.cluster.backend`."""

NOISE = 0.5
"""Length of a site's own noise relative to what it repeats of the recorded one."""

SITES = "sites"
"""The stage that is not the centre's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a site has sent in a round.

    Args:
        probes: (E, D) float32, from the anchor of the round.
        following: (E, D) float32, from that of the next round.
        moved: (E, D) float32, its networks less their starts.
        chosen: Kinds of the starts.
        numbers: What it declares.
    """

    probes: Tensor
    following: Tensor
    moved: Tensor
    chosen: tuple[str, ...]
    numbers: Mapping[str, float]


def recorded(folder: Path, sites: int, most: int) -> list[Answer]:
    """Two rounds of real sites; leaves a federation after the first and returns the second."""
    simulation = Simulation(
        data=("digits",),
        scenario="few-shot",
        sites=sites,
        held_out=2,
        rounds=2,
        out=folder,
        config=load_config(None, [*SETTINGS, "seed=1", f"round.most={most}"]),
    )
    federation, _ = prepare(simulation, force=False)
    files = sorted((folder / "sites").glob("*/site.toml"))
    layout, probes, found = federation.target.layout, dict[str, Tensor](), list[Answer]()
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        told = unpack_probe_reply(reply.content, layout)
        probes[told.site] = told.probes
        return reply

    @app.train("task")
    def task(message: Message, context: Context) -> Message:
        asked, reply = unpack_task(message.content), honest_app(message, context)
        told = unpack_update(reply.content, layout)
        if asked.candidates:
            pairs = zip(asked.candidates, told.chosen, strict=True)
            found.append(
                Answer(
                    probes=probes[told.site],
                    following=told.probes,
                    moved=told.weights - torch.stack([starts[kind] for starts, kind in pairs]),
                    chosen=told.chosen,
                    numbers=told.numbers,
                )
            )
        probes[told.site] = told.probes
        return reply

    def conducted() -> None:
        grid = LoopbackGrid(app, nodes(files))
        (state,) = conductor(Federation.open(folder), files, grid=grid).run(1, sites)
        require_done(state.step, state.reason)

    conducted()
    shutil.copytree(folder, folder.with_name("after"))
    conducted()
    return found


def require_done(step: str, reason: str) -> None:
    """Ends the program unless a round is done."""
    if step != "done":
        raise SystemExit(f"a round ended as {step}: {reason}")


class Stages:
    """CPU seconds of this process by stage; what runs within another stage is not counted there."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._open = ["rest"]
        self._since = process_time()

    @contextmanager
    def within(self, stage: str) -> Iterator[None]:
        """Counts the body for a stage."""
        self._turn()
        self._open.append(stage)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = process_time()
        self.spent[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted for a stage."""

        def call(*arguments: Any, **named: Any) -> Any:
            with self.within(stage):
                return act(*arguments, **named)

        return call

    def watched(self) -> ExitStack:
        """Counts the parts of a round for their stages as long as it is open."""
        parts: list[tuple[Any, str, str]] = [
            (exchange, "pack_task", "packing"),
            (ingest, "unpack_update", "reading"),
            (CheckIn, "probe", "check-in"),
            (Zoo, "append", "zoo"),
            (Zoo, "tidy", "merging"),
            *((Screening, name, "screening") for name in ("judge", "remember", "keep_part")),
            *((Screening, name, "review") for name in ("begin_round", "review")),
            *((RoundExchange, name, "journal") for name in ("end", "result")),
            *((RunCache, name, "cache") for name in ("keep_context", "has_context")),
        ]
        held = ExitStack()
        for owner, name, stage in parts:
            held.enter_context(patch.object(owner, name, self.timed(stage, getattr(owner, name))))
        return held


class RecordedSites(LoopbackGrid):
    """Any number of sites that answer as some recorded ones did, each with noise of its own."""

    def __init__(self, answers: list[Answer], federation: Federation, sites: int, stages: Stages):
        super().__init__(ClientApp(), {})
        self._answers, self._layout, self._stages = answers, federation.target.layout, stages
        self.names = {node: f"site-{node:06d}" for node in range(1, sites + 1)}
        self._out: dict[str, bytes] = {}
        self._numbers = count(1)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.names)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        with self._stages.within("messages"):
            for message in messages:
                wire, identifier = message_to_proto(message), f"message-{next(self._numbers)}"
                wire.metadata.message_id = identifier
                self._out[identifier] = wire.SerializeToString()
                pushed.append(identifier)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        with self._stages.within(SITES):
            data = [self._answered(self._out.pop(i)) for i in message_ids if i in self._out]
        with self._stages.within("messages"):
            return [message_from_proto(Wire.FromString(one)) for one in data]

    def _answered(self, data: bytes) -> bytes:
        message = message_from_proto(Wire.FromString(data))
        node = message.metadata.dst_node_id
        known = self._answers[node % len(self._answers)]
        rng = torch.Generator().manual_seed(node)

        def own(rows: Tensor) -> Tensor:
            noise = torch.randn(rows.shape, generator=rng)
            return rows + NOISE * noise * rows.norm(dim=1, keepdim=True) / rows.shape[1] ** 0.5

        if message.metadata.message_type == PROBE_ACTION:
            content = pack_probe_reply(
                ProbeReply(site=self.names[node], probes=own(known.probes)), self._layout
            )
        else:
            task = unpack_task(message.content)
            pairs = zip(task.candidates, known.chosen, strict=True)
            starts = torch.stack([starts[kind] for starts, kind in pairs])
            update = Update(
                site=self.names[node],
                round=task.round,
                weights=starts + own(known.moved),
                probes=own(known.following),
                chosen=known.chosen,
                numbers=known.numbers,
            )
            content = pack_update(update, self._layout)
        return message_to_proto(Message(content, reply_to=message)).SerializeToString()


class CountedBackend(InlineBackend):
    """The compute backend in this process, with as many sites at a time as a Ray task has."""

    def __init__(self, federation: Federation, stages: Stages) -> None:
        super().__init__(federation)
        self._federation, self._stages = federation, stages
        self.retrain = stages.timed("retraining", super().retrain)  # type: ignore[method-assign]
        self.objections = stages.timed("gate", super().objections)  # type: ignore[method-assign]

    def candidates(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        with self._stages.within("candidates"):
            factory = CandidateFactory.open(self._federation, release)
        names = list(probes)
        for first in range(0, len(names), SITES_PER_TASK):
            chunk = names[first : first + SITES_PER_TASK]
            with self._stages.within("candidates"):
                contexts = torch.stack([probes[site] for site in chunk])
                made = list(factory.candidates(chunk, contexts))
            yield from made


def measured(place: Path, answers: list[Answer], sites: int) -> dict[str, Any]:
    """The second round with so many sites; the centre's figures."""
    torch.set_num_threads(1)
    root = place.with_name(f"with-{sites}")
    shutil.copytree(place, root)
    federation, stages, held = Federation.open(root), Stages(), list[float]()
    grid = RecordedSites(answers, federation, sites, stages)
    backend = CountedBackend(federation, stages)
    before = memory_mib("VmRSS")

    def listen(event: str, fields: dict[str, Any]) -> None:
        if event == RETRAINING_STARTED:
            held.append(memory_mib("VmHWM"))

    with stages.watched():
        (state,) = Coordinator(
            federation=federation,
            messenger=Messenger(grid=grid, config=federation.config.round, stop=threading.Event()),
            backend=backend,
            log=federation.events(listen),
            names=lambda: grid.names,
        ).run(1, sites)
        with stages.within("rest"):
            pass
    require_done(state.step, state.reason)
    spent = dict(stages.spent)
    spent.pop(SITES)
    return {
        "sites": sites,
        "accepted": len(state.accepted),
        "parameters": federation.target.layout.size,
        "cpu_s": sum(spent.values()),
        "stages": spent,
        "memory_before_mib": before,
        "memory_exchange_mib": held[0] if held else memory_mib("VmHWM"),
        "memory_peak_mib": memory_mib("VmHWM"),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Prints milliseconds of CPU a site by stage, and how they grow with each doubling."""
    names = sorted(rows[-1]["stages"], key=lambda name: -rows[-1]["stages"][name])
    print(f"{rows[0]['parameters']:,} parameters; ms of CPU a site; last column: growth a doubling")
    print(f"{'':14}" + "".join(f"{row['sites']:>10,}" for row in rows))

    def line(name: str, values: list[float]) -> None:
        doublings = len(values) - 1
        growth = (values[-1] / values[0]) ** (1 / doublings) if doublings and values[0] else 1.0
        print(f"{name:14}" + "".join(f"{v:10.2f}" for v in values) + f"{growth:10.2f}")

    for name in names:
        line(name, [1e3 * row["stages"].get(name, 0.0) / row["sites"] for row in rows])
    line("all", [1e3 * row["cpu_s"] / row["sites"] for row in rows])
    for what in ("before", "exchange", "peak"):
        line(f"MiB, {what}", [row[f"memory_{what}_mib"] for row in rows])
    line("accepted", [row["accepted"] / row["sites"] for row in rows])


def main() -> None:
    """Records, conducts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10_000)
    parser.add_argument("--doublings", type=int, default=4)
    parser.add_argument("--recorded", type=int, default=96)
    most = RoundConfig().most
    parser.add_argument("--most", type=int, default=most, help="sites in the retraining at most")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [asked.sites >> less for less in range(asked.doublings, -1, -1)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        answers = recorded(folder / "real", asked.recorded, asked.most)
        rows = []
        for sites in sizes:
            # A process of its own, for its own peak of memory.
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                rows.append(pool.submit(measured, folder / "after", answers, sites).result())
            show(rows)
    write_json(asked.json, {"sizes": rows})


if __name__ == "__main__":
    main()
