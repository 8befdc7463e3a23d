"""The test federation itself: the loopback Grid, and the real deployment and its clean end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from tests.support.deployment import Deployment, deployment
from tests.support.loopback import LoopbackGrid
from tests.support.waiting import holds

site_app = ClientApp()


@site_app.train()
def double(message: Message, context: Context) -> Message:
    weights = message.content["weights"].to_numpy_ndarrays(keep_input=True)[0]
    weights *= 2.0
    seen = context.state.get("seen", MetricRecord({"messages": 0}))
    seen["messages"] += 1
    context.state["seen"] = seen
    site = ConfigRecord({"site": context.node_config["site"], "messages": seen["messages"]})
    return Message(RecordDict({"weights": ArrayRecord([weights]), "site": site}), reply_to=message)


@site_app.query()
def refuse(message: Message, context: Context) -> Message:
    raise PermissionError("this site says no")


def ask(grid: LoopbackGrid, kind: str, weights: np.ndarray, *, timeout_s: float = 0.0) -> list:
    content = RecordDict({"weights": ArrayRecord([weights])})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages, timeout=timeout_s))


def test_loopback_reaches_every_node_with_its_own_configuration():
    grid = LoopbackGrid(site_app, {11: {"site": "north"}, 22: {"site": "south"}})
    replies = ask(grid, "train", np.ones(3, np.float32))
    sites = {r.metadata.src_node_id: r.content["site"]["site"] for r in replies}
    assert sites == {11: "north", 22: "south"}
    for reply in replies:
        np.testing.assert_array_equal(reply.content["weights"].to_numpy_ndarrays()[0], 2.0)


def test_loopback_keeps_the_state_of_a_node_between_messages():
    grid = LoopbackGrid(site_app, {11: {"site": "north"}})
    ask(grid, "train", np.ones(3))
    (reply,) = ask(grid, "train", np.ones(3))
    assert reply.content["site"]["messages"] == 2


def test_loopback_shares_no_array_between_server_and_site():
    grid = LoopbackGrid(site_app, {11: {"site": "north"}, 22: {"site": "south"}})
    weights = np.ones(3, np.float32)
    first, second = ask(grid, "train", weights)
    np.testing.assert_array_equal(weights, 1.0)
    np.testing.assert_array_equal(
        first.content["weights"].to_numpy_ndarrays()[0],
        second.content["weights"].to_numpy_ndarrays()[0],
    )


def test_loopback_answers_an_exception_of_the_app_with_an_error_message():
    grid = LoopbackGrid(site_app, {11: {"site": "north"}})
    (reply,) = ask(grid, "query", np.ones(3))
    assert not reply.has_content()
    assert "this site says no" in reply.error.reason


def test_loopback_leaves_out_the_reply_of_a_silent_node():
    nodes = {11: {"site": "north"}, 22: {"site": "south"}}
    grid = LoopbackGrid(site_app, nodes, silent={22})
    replies = ask(grid, "train", np.ones(3), timeout_s=0.05)
    assert [reply.metadata.src_node_id for reply in replies] == [11]


TOY_APP = """
    import time
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    client = ClientApp()
    server = ServerApp()

    @client.query()
    def query(message, context):
        time.sleep(message.content["task"]["seconds"])
        site = open(context.node_config["site"]).read()
        return Message(RecordDict({"site": ConfigRecord({"text": site})}), reply_to=message)

    @server.main()
    def main(grid, context):
        while len(nodes := list(grid.get_node_ids())) < 2:
            time.sleep(0.2)
        task = RecordDict({"task": ConfigRecord({"seconds": context.run_config["seconds"]})})
        messages = [Message(task, node, "query") for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=300):
            print("SITE", reply.content["site"]["text"])
        if context.run_config["fails"]:
            raise RuntimeError("the toy server fails")
"""

PYPROJECT = """
    [project]
    name = "toy"
    version = "1.0.0"
    license = "Apache-2.0"
    dependencies = []

    [tool.flwr.app]
    publisher = "toy"

    [tool.flwr.app.components]
    serverapp = "toy_federation:server"
    clientapp = "toy_federation:client"

    [tool.flwr.app.config]
    seconds = 0
    fails = 0
    note = ""
"""


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Deployment]:
    modules, app_dir = tmp_path / "modules", tmp_path / "app"
    modules.mkdir()
    app_dir.mkdir()
    (modules / "toy_federation.py").write_text(textwrap.dedent(TOY_APP))
    (app_dir / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    sites = [tmp_path / "north.toml", tmp_path / 'the "south".toml']
    for site in sites:
        site.write_text(f"contents of {site.stem}")
    env = {"PYTHONPATH": str(modules)}
    with deployment(tmp_path / "flower", sites=sites, app_dir=app_dir, env=env) as running:
        yield running
    assert running.open_ports() == []
    assert running.stray_processes() == {}


@pytest.mark.deployment
@pytest.mark.slow
def test_deployment_runs_the_app_at_every_site_and_ends_while_they_are_at_work(
    toy: Deployment,
):
    good = toy.run({"note": 'quotes " and = and spaces'})
    assert good.status == "finished:completed"
    assert "SITE contents of north" in good.log_text
    assert 'SITE contents of the "south"' in good.log_text

    bad = toy.run({"fails": 1})
    assert bad.status == "finished:failed"
    assert "the toy server fails" in bad.log_text

    with pytest.raises(RuntimeError, match=r"no end of run \d+ within 1 s"):
        toy.run({"seconds": 3600}, timeout_s=1.0)
    # The deployment's end comes while sites are at work.
    assert holds(lambda: any("flwr-clientapp" in said for said in toy.stray_processes().values()))
    toy.stop()
