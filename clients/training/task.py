"""The answers of a site: an update to a task, its probes to a request for the probes alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from clients.site.model_store import save_model
from clients.site.policy import allowed_numbers
from clients.site.sent_log import utc_now
from clients.site.site import Site
from clients.training import shared_training
from clients.training.accepted_request import AcceptedRequest, accept
from clients.training.body_training import context, own_network, update_on_body
from clients.training.fine_tuning import fine_tune_episodes, lowest_loss, model_of, plain_update
from clients.training.private_training import private_probes, private_update
from clients.training.probe_cache import probes_of
from clients.training.shared_training import contexts_of
from f2l_fed.errors import PolicyRefusal
from f2l_fed.wire.messages import ProbeReply, ProbeRequest, Task, Update


def respond(site: Site, task: Task, *, app: str = "") -> tuple[Update, tuple[float, ...]]:
    """Answers a task: chooses starts, fine-tunes them, keeps the best network, makes the update.

    A site with a privacy budget keeps its network and sends a noised one.

    Args:
        site: The site.
        task: The server's task.
        app: SHA-256 of the Flower app that asks; "" where it is not known.

    Returns:
        The update with the numbers that may leave, and the Euclidean length of every change in
        it, from a start to its network.

    Raises:
        PolicyRefusal: If the site's policy or its privacy budget forbids it, or a network or probe
            overflows; a network that the site has kept before then stays.
        LayoutMismatch: If the server has another network by this name.
        DataError: If the site's examples don't suit the network.
    """
    accepted = accept(site, task, app=app)
    if accepted.body is not None:
        return _respond_on_body(accepted)
    if task.frame.shared is not None:
        return _respond_to_shared(accepted)
    networks = fine_tune_episodes(accepted)
    if (best := lowest_loss(networks)) is not None:
        save_model(site.state, *model_of(accepted, best, utc_now()))
    if budget := site.budget:
        update, change = private_update(accepted, budget)
        changes: tuple[float, ...] = (change,)
    else:
        if not all(network.is_usable for network in networks):
            raise PolicyRefusal("diverged")
        update = plain_update(accepted, networks)
        _require_finite(update.probes)
        changes = tuple(network.change for network in networks)
    numbers = allowed_numbers(site.config.policy, update.numbers)
    return replace(update, numbers=numbers), changes


def respond_to_probe(site: Site, request: ProbeRequest, *, app: str | None = "") -> ProbeReply:
    """Answers a server that does not know this site's context yet.

    Args:
        site: The site.
        request: The server's request.
        app: SHA-256 of the Flower app that asks; "" where it is not known; None where it is the
            site itself that has asked for a network.

    Raises:
        PolicyRefusal, LayoutMismatch, DataError: As in `respond`.
    """
    accepted = accept(site, request, app=app)
    if accepted.body is not None:
        return ProbeReply(site=site.config.name, probes=context(accepted))
    budget = site.budget
    if budget:
        return ProbeReply(site=site.config.name, probes=private_probes(accepted, budget))
    shares = request.frame.shared is not None
    probes = contexts_of(accepted) if shares else probes_of(accepted)
    _require_finite(probes)
    return ProbeReply(site=site.config.name, probes=probes)


def _respond_on_body(accepted: AcceptedRequest[Task]) -> tuple[Update, tuple[float, ...]]:
    """The update of a site on a body, whose own network is kept."""
    site = accepted.site
    network = own_network(accepted)
    if network.is_usable:
        save_model(site.state, *model_of(accepted, network, utc_now()))
    update, changes = update_on_body(accepted, network)
    numbers = allowed_numbers(site.config.policy, update.numbers)
    return replace(update, numbers=numbers), changes


def _respond_to_shared(
    accepted: AcceptedRequest[Task],
) -> tuple[Update, tuple[float, ...]]:
    """The update of a site that shares a network, whose own network is kept."""
    site = accepted.site
    network = shared_training.own_network(accepted)
    if network.is_usable:
        save_model(site.state, *model_of(accepted, network, utc_now()))
    if budget := site.budget:
        update, change = private_update(accepted, budget)
        changes: tuple[float, ...] = (change,)
        # These never leave: the site's next network is made of them. Nor may it be told outside
        # whether they overflow, which depends on examples without any noise.
        with suppress(PolicyRefusal):
            shared_training.passes(accepted)
    else:
        update, changes = shared_training.update_of_shared(accepted, network)
    numbers = allowed_numbers(site.config.policy, update.numbers)
    return replace(update, numbers=numbers), changes


def _require_finite(probes: Tensor) -> None:
    if not bool(probes.isfinite().all()):
        raise PolicyRefusal("diverged")
