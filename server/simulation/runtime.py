"""The runtime of simulated sites: a grid of local processes, or Flower's own on Ray."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from server.cluster.engine import Engine
from server.cluster.local_engine import cpus
from server.simulation.changes import with_numbers
from server.simulation.local_grid import LocalGrid

CLIENT_APP = "clients.client_app"
SITES_ROOT = "F2L_SITES_ROOT"
"""Environment variable of the sites' processes: the folder of the sites' folders."""

_PATIENCE_S, _LOOK_S = 5.0, 0.2


def with_sites(
    conduct: Callable[[Grid], None],
    engine: Engine,
    root: Path,
    sites: int,
    *,
    stop: threading.Event,
    app: Callable[[], ClientApp] | None = None,
) -> None:
    """Runs the server's part of a simulation, in a thread, with the grid of its sites.

    Args:
        conduct: The server's part.
        engine: A local one makes the sites' processes local, too; one on Ray has been started with
            `SITES_ROOT` in its environment.
        root: The folder of the sites' folders.
        sites: Number of sites.
        stop: Set here when Ctrl-C ends the simulation.
        app: Makes the sites' app; a function of a module. If left out, the real one, which also
            tells the number of a site.

    Raises:
        KeyboardInterrupt: By Ctrl-C or SIGTERM, after all processes have been ended.
    """
    ended, raised = threading.Event(), list[Exception]()

    def conducted(grid: Grid) -> None:
        try:
            conduct(grid)
        except Exception as error:
            # The boundary of the thread: the main thread raises the error again.
            raised.append(error)
        finally:
            ended.set()

    of_sites = app or real_sites
    with _interruptible():
        if engine.config.on_ray:
            _on_ray(conducted, engine, sites, of_sites, stop, ended)
        else:
            environment = {SITES_ROOT: str(root.absolute())}
            processes = cpus(engine.config)
            grid = LocalGrid(of_sites, sites=sites, processes=processes, environment=environment)
            _locally(conducted, engine, grid, stop, ended)
    if raised:
        raise raised[0]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Makes SIGTERM end the block like Ctrl-C; Ray's own handler aborts the process."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def real_sites() -> ClientApp:
    """The sites' own app, which also tells the number of a site."""
    own: ClientApp = importlib.import_module(CLIENT_APP).app
    return with_numbers(own)


def _locally(
    conduct: Callable[[Grid], None],
    engine: Engine,
    grid: LocalGrid,
    stop: threading.Event,
    ended: threading.Event,
) -> None:
    try:
        threading.Thread(target=conduct, args=(grid,), daemon=True).start()
        # Python sees a signal that the system has given to another thread at the next step alone.
        while not ended.wait(_LOOK_S):
            pass
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.set()
        # What waits for a process ends with it, and what writes a file ends by itself.
        engine.close()
        grid.close()
        ended.wait(_PATIENCE_S)
        raise
    finally:
        grid.close()


def _on_ray(
    conduct: Callable[[Grid], None],
    engine: Engine,
    sites: int,
    app: Callable[[], ClientApp],
    stop: threading.Event,
    ended: threading.Event,
) -> None:
    # Imports Ray.
    from flwr.simulation import run_simulation

    server = ServerApp()

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        conduct(grid)

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    try:
        run_simulation(
            server_app=server,
            client_app=app(),
            num_supernodes=sites,
            backend_config={"client_resources": {"num_cpus": 1}},
        )
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.set()
        # Ray ends the whole process if a thread uses it after it was shut down.
        ended.wait(_PATIENCE_S)
        engine.close()
        raise
