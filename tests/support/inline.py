"""A federation in one process: real apps, real zoo, real rounds, no Ray and no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.client_app import app as honest_app
from f2l_fed.events import Listener
from f2l_fed.local_training.selection import CandidateSet
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.candidates import CandidateFactory
from server.generator.gate import objections
from server.generator.retrain import retrain
from server.rounds.backend import Backend
from server.rounds.coordinator import Coordinator
from server.rounds.messaging import Messenger
from server.rounds.protocols import SiteProtocols, UnregisteredSites
from server.rounds.state import RoundState
from tests.support.loopback import LoopbackGrid


class InlineBackend:
    """A compute backend in this process, without the processes of `EngineBackend`."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation

    def retrain(self, id: str, commit: int) -> Release:
        return retrain(self._federation.root, id, commit)

    def candidates(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        factory = CandidateFactory.open(self._federation, release)
        for site in probes:
            if (probe := probes.get(site)) is not None:
                yield from factory.candidates([site], probe[None])

    def objections(self, id: str) -> tuple[str, ...]:
        return objections(self._federation, self._federation.releases.read(id))


class CodingSites(UnregisteredSites):
    """Sites whose answers may be coded, as those of a deployment."""

    coded = True


def nodes(site_files: list[Path], first: int = 1) -> dict[int, dict[str, str]]:
    """Configurations of consecutive nodes, one for each ``site.toml`` file."""
    return {node: {"site": str(path)} for node, path in enumerate(site_files, first)}


def answering(task: Callable[[Message, Context], Message]) -> ClientApp:
    """The sites' app with another answer to tasks."""
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        return honest_app(message, context)

    app.train("task")(task)
    return app


def conductor(
    federation: Federation,
    site_files: list[Path],
    *,
    grid: LoopbackGrid | None = None,
    listener: Listener | None = None,
    backend: Backend | None = None,
    names: Callable[[], Mapping[int, str]] = dict,
    protocols: SiteProtocols | None = None,
) -> Coordinator:
    """A coordinator of the sites of the given ``site.toml`` files; see `nodes`."""
    grid = grid or LoopbackGrid(honest_app, nodes(site_files))
    return Coordinator(
        federation=federation,
        messenger=Messenger(grid=grid, config=federation.config.round, stop=threading.Event()),
        backend=backend or InlineBackend(federation),
        log=federation.events(listener),
        names=names,
        protocols=protocols,
    )


def run_inline(
    federation: Federation, count: int, *, listener: Listener | None = None
) -> list[RoundState]:
    """Conducts rounds with the prepared sites of a simulation's folder."""
    files = sorted((federation.root / "sites").glob("*/site.toml"))
    return conductor(federation, files, listener=listener).run(count, len(files))
