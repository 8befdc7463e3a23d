"""The changes of a simulated federation between its rounds: who is there, and with what examples.

Every round is a run of its own then, as in a deployed federation: the contexts of sites are asked
for at its beginning, and so they are of the examples that a site has by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from f2l_fed import events
from f2l_fed.data import Partition
from f2l_fed.events import EventLog
from f2l_fed.wire.messages import PROBE_ACTION, TASK_ACTION
from server.federation.folder import Federation
from server.rounds.messaging import Messenger
from server.rounds.state import RoundState
from server.simulation.site_folders import site_folder, write_examples

_NUMBER = "number"

ConductRound = Callable[[Callable[[], Mapping[int, str]]], list[RoundState]]
"""Conducts one round with the nodes that have names."""


def changing_rounds(
    federation: Federation,
    divided: Partition,
    rounds: int,
    nodes: Mapping[int, str],
    log: EventLog,
    conduct: ConductRound,
) -> list[RoundState]:
    """Conducts rounds, the changes between them being made; ends after one that failed.

    Args:
        federation: The federation from `server.simulation.setup.prepare`.
        divided: Its data.
        rounds: Number of rounds.
        nodes: The names of all sites that ever take part, by their nodes.
        log: Gets an event for every change.
        conduct: Conducts one of the rounds.
    """
    number_of = {site.name: number for number, site in enumerate(divided.sites)}
    states: list[RoundState] = []
    for over in range(rounds):
        for change in divided.changes:
            if change.after == over:
                name = change.site.name
                folder = site_folder(federation.root, number_of[name])
                write_examples(folder, change.site, divided)
                log.emit(events.SITE_CHANGED, round=over, site=name, what=change.what)
        there = divided.after(over)
        present = {node: site for node, site in nodes.items() if site in there}
        states += conduct(present.copy)
        if states[-1].step == "failed":
            break
    return states


def with_numbers(app: ClientApp) -> ClientApp:
    """The sites' app, whose nodes also tell the number of their simulated site."""
    numbered = ClientApp()
    numbered.query(PROBE_ACTION.partition(".")[2])(app)
    numbered.train(TASK_ACTION.partition(".")[2])(app)
    numbered.query(_NUMBER)(_number)
    return numbered


def node_names(grid: Grid, divided: Partition, messenger: Messenger) -> dict[int, str]:
    """The names of the simulated sites by their nodes, which are those of `with_numbers`.

    Raises:
        RoundError: If the nodes do not come.
    """
    requests = [
        Message(RecordDict(), dst_node_id=node, message_type=f"query.{_NUMBER}")
        for node in messenger.wait_for_nodes(len(divided.sites))
    ]
    found = {}
    for reply in grid.send_and_receive(requests):
        number = reply.content.config_records[_NUMBER][_NUMBER]
        found[reply.metadata.src_node_id] = divided.sites[int(str(number))].name
    return found


def _number(message: Message, context: Context) -> Message:
    number = int(str(context.node_config["partition-id"]))
    content = RecordDict({_NUMBER: ConfigRecord({_NUMBER: number})})
    return Message(content, reply_to=message)
