"""A network that a site asks for outside of rounds.

The request is answered like one of a round: the same acceptance, the same context, the same record
before it leaves; and the network is made by the same functions from what the server generates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from flwr.app import RecordDict

from clients.site.model_store import Model, ModelStart
from clients.site.policy import allow_download
from clients.site.sent_log import array_bytes, utc_now
from clients.site.site import Site
from clients.training import shared_training
from clients.training.accepted_request import accept
from clients.training.body_training import own_network
from clients.training.fine_tuning import FineTuned, fine_tune_episodes, model_of
from clients.training.outgoing import probe_message
from f2l_fed.errors import F2LError, TargetError, WireError
from f2l_fed.local_training.site_streams import NO_ROUND
from f2l_fed.wire.messages import Task
from f2l_fed.wire.packing import unpack_task

_ATTEMPTS = 3


class NetworkSource(Protocol):
    """The server, as a site asks it for a network."""

    def context_request(self) -> tuple[str, RecordDict]:
        """The promoted release's id and its packed request for a context."""

    def task(self, release: str, context: RecordDict) -> RecordDict | None:
        """The packed task that a release has for a context; None if it is promoted no more."""


def request_network(
    site: Site, source: NetworkSource, *, steps: int | None = None
) -> tuple[Model, ModelStart, FineTuned]:
    """Asks for a network and makes it; nothing is kept yet.

    Args:
        site: The site.
        source: The server.
        steps: Gradient steps; None for as many as the server says.

    Returns:
        The network, its start, and both with loss and accuracy.

    Raises:
        PolicyRefusal: If the site's policy or its privacy budget forbids it.
        LayoutMismatch: If the server has another network by this name.
        DataError: If the site's examples don't suit the network.
        WireError: If the server's answers are not what was asked for.
        TargetError: If the network overflows.
    """
    return made_network(site, _task(site, source), steps=steps)


def made_network(
    site: Site, task: Task, *, steps: int | None = None
) -> tuple[Model, ModelStart, FineTuned]:
    """The network that a site makes by a task outside of rounds; as `request_network`."""
    accepted = accept(site, task, app=None)
    if steps is not None:
        asked = replace(task, recipe=replace(task.recipe, steps=steps))
        accepted = replace(accepted, request=asked)
    if accepted.body is not None:
        network = own_network(accepted)
    elif task.frame.shared is not None:
        network = shared_training.own_network(accepted, steps=steps)
    else:
        (network,) = fine_tune_episodes(accepted)
    if not network.is_usable:
        raise TargetError(
            "the network overflows, so the one kept before stays",
            where=f"release {task.release}",
            remedy="Tell the administrator of the federation.",
        )
    return *model_of(accepted, network, utc_now()), network


def _task(site: Site, source: NetworkSource) -> Task:
    """The task for the site's context, which leaves recorded."""
    for _ in range(_ATTEMPTS):
        release, request = source.context_request()
        outgoing = probe_message(site, request, app=None)
        outgoing.record(site)
        answer = source.task(release, outgoing.content)
        if answer is None:
            continue
        allow_download(site.config.policy, array_bytes(answer))
        task = unpack_task(answer)
        if (task.round, task.release) != (NO_ROUND, release) or len(task.candidates) > 1:
            raise WireError("the server answers with another task than was asked for")
        return task
    raise F2LError(
        "another release was promoted again and again meanwhile", remedy="Try again later."
    )
