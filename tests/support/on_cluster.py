"""Rounds of a prepared federation with its sites in this process and its backend on a cluster.

    python -m tests.support.on_cluster ROOT ROUNDS NODES

The cluster is the one that the federation's configuration names; as many nodes are waited for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray

from f2l_fed.errors import F2LError
from server.cluster.backend import EngineBackend
from server.cluster.ray_engine import started_ray
from server.federation.folder import Federation
from tests.support.inline import conductor
from tests.support.waiting import holds


def main() -> None:
    """See the module."""
    federation = Federation.open(Path(sys.argv[1]))
    config = federation.config.ray
    files = sorted((federation.root / "sites").glob("*/site.toml"))
    try:
        engine = started_ray(config)
        nodes = int(sys.argv[3])
        if not holds(lambda: sum(node["Alive"] for node in ray.nodes()) >= nodes):
            sys.exit("too few nodes")
        backend = EngineBackend(root=federation.root, engine=engine)
        conductor(federation, files, backend=backend).run(int(sys.argv[2]), len(files))
    except F2LError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
