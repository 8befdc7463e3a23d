"""The Flower ServerApp: an adapter between Flower's grid and the coordinator of rounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from f2l_fed.core.private_files import private_files
from f2l_fed.errors import ConfigError
from f2l_fed.events import Listener
from f2l_fed.wire.reply_bound import reply_bound
from server.cluster.backend import EngineBackend
from server.cluster.engine import Engine, running_engine
from server.federation.folder import Federation
from server.membership.site_protocols import RegisteredProtocols
from server.membership.site_registry import SiteRegistry
from server.rounds.coordinator import Coordinator
from server.rounds.messaging import Messenger
from server.rounds.run_end import RunEnd, run_end_path
from server.rounds.state import RoundState
from server.superlink.reply_guard import guard_replies


def run_rounds(
    grid: Grid,
    root: Path,
    engine: Engine,
    *,
    rounds: int,
    sites: int,
    stop: threading.Event | None = None,
    listener: Listener | None = None,
    names: Callable[[], Mapping[int, str]] | None = None,
) -> list[RoundState]:
    """Conducts rounds of the federation in a folder with the nodes of a grid.

    Args:
        grid: Flower's connection to the nodes.
        root: The federation's folder.
        engine: Runs the heavy work.
        rounds: Number of new rounds.
        sites: Number of nodes to wait for before the first.
        stop: Set from outside to give up.
        listener: Gets every event.
        names: Looks up the names of the nodes' sites, see `Coordinator`; if left out, those that
            the SuperLink has bound to their keys.
    """
    federation = Federation.open(root)
    # Steps between messages are small: of several threads each waits for the others' cores.
    torch.set_num_threads(engine.config.threads)
    return Coordinator(
        federation=federation,
        messenger=Messenger(
            grid=grid, config=federation.config.round, stop=stop or threading.Event()
        ),
        backend=EngineBackend(root=root, engine=engine),
        log=federation.events(listener),
        names=names or partial(_bound_names, grid),
        protocols=RegisteredProtocols(SiteRegistry(root / "registry")),
    ).run(rounds, sites)


def _bound_names(grid: Grid) -> dict[int, str]:
    """The names that the SuperLink has bound to the nodes' keys; none without authentication."""
    return {node.node_id: node.name for node in grid.get_nodes() if getattr(node, "name", "")}


app = ServerApp()


@app.main()
@private_files()
def main(grid: Grid, context: Context) -> None:
    """Conducts the rounds of one Flower run, as its configuration says, and records its end."""
    root = str(context.run_config.get("workdir", ""))
    if not root:
        raise ConfigError(
            "the run does not say which federation it is for",
            where="--run-config",
            expected='workdir="/path/of/the/federation"',
        )
    run, path = str(context.run_id), run_end_path(Path(root))
    try:
        federation = Federation.open(Path(root))
        episodes = federation.config.pairs
        guard_replies(reply_bound(federation.target.layout, episodes, federation.body_layout))
        with running_engine(federation.config.ray) as engine:
            run_rounds(
                grid,
                Path(root),
                engine,
                rounds=int(context.run_config.get("rounds", 1)),
                sites=int(context.run_config.get("sites", 1)),
            )
    except Exception as error:
        RunEnd.of(run, error).write(path)
        raise
    RunEnd(run=run, outcome="completed").write(path)
