"""The ServerApp records how its run ended."""

from __future__ import annotations

import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from f2l_fed.config import FederationConfig
from f2l_fed.errors import RoundError
from server import server_app
from server.federation.folder import Federation
from server.rounds.run_end import RunEnd, run_end_path
from tests.support.loopback import LoopbackGrid


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_run_is_recorded(tmp_path, monkeypatch, fails):
    def run_rounds(*_: object, **__: object) -> None:
        if fails:
            raise RoundError("no site is connected", remedy="Start the sites.")

    monkeypatch.setattr(server_app, "run_rounds", run_rounds)
    monkeypatch.setattr(server_app, "guard_replies", lambda _: None)
    Federation.create(tmp_path, FederationConfig())
    path = run_end_path(tmp_path)
    path.parent.mkdir()
    context = Context(7, 1, {}, RecordDict(), {"workdir": str(tmp_path)})
    grid = LoopbackGrid(ClientApp(), {})
    if fails:
        with pytest.raises(RoundError):
            server_app.app(grid, context)
    else:
        server_app.app(grid, context)
    reason = "no site is connected. Start the sites." if fails else ""
    outcome = "failed" if fails else "completed"
    assert RunEnd.read(path, "7") == RunEnd(run="7", outcome=outcome, reason=reason)
