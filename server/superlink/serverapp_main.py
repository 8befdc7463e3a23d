"""The ``flwr-serverapp`` of a federation: conducts one run with the secret of its SuperLink.

The libraries that take long to import come first, while the SuperExec sends the heartbeats.
"""

from __future__ import annotations

import torch  # noqa: F401
from flwr.superlink.cli.flwr_serverapp import flwr_serverapp
from flwr.superlink.grid import http_grid

from f2l_fed.flower.runtime_client import begin_task


def main() -> None:
    """Conducts one run, with the arguments of ``flwr-serverapp``."""
    begin_task(http_grid)
    flwr_serverapp()


if __name__ == "__main__":
    main()
