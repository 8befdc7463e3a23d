"""A request that a site has accepted: its policy allows it, and network and examples fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Generic, TypeVar

import torch
from torch import Tensor

from clients.site.policy import (
    PolicyConfig,
    Work,
    allow_answer,
    allow_batch,
    allow_network,
    allow_request,
    allow_work,
)
from clients.site.sent_log import utc_now
from clients.site.site import Site
from clients.site.site_features import on_features
from clients.training.accepted_body import allow_body
from f2l_fed.core.device import device_of
from f2l_fed.data.readers.agreed_scales import scales_digest
from f2l_fed.errors import DataError, LayoutMismatch, PolicyRefusal
from f2l_fed.local_training.candidate_kinds import ANCHOR, NEAREST
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.probe import anchor, first_anchor, recentred
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.body import Body
from f2l_fed.targets.build import parameter_count
from f2l_fed.targets.config import FEWEST
from f2l_fed.targets.frozen_part import FrozenPart
from f2l_fed.targets.head_rows import classes_of_width, with_classes
from f2l_fed.wire.messages import Frame, ProbeRequest, Task

BODY = "body"
"""Name of the release's body in errors about a request."""

Request = TypeVar("Request", bound=ProbeRequest | Task)
Request_co = TypeVar("Request_co", bound=ProbeRequest | Task, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRequest(Generic[Request_co]):
    """An accepted request with all that is needed to answer it.

    Args:
        site: The site that answers; with a body, with its own classes numbered from 0.
        request: A task, or a request for the probes alone.
        target: The network that is generated: the whole one, or its head as one of its own. Like
            the body, it computes on the site's device.
        body: The body that it sits on, under a head for the site's own number of classes; None
            where whole networks are generated.
    """

    site: Site
    request: Request_co
    target: Target
    body: Body | None = None

    @property
    def anchor(self) -> Tensor:
        """(D,) float32, the start of the probes."""
        sent = self.request.anchor
        return self.first_anchor if sent is None else sent

    @property
    def first_anchor(self) -> Tensor:
        """(D,) float32, the first anchor of the federation's lineage; (B,), its first body."""
        body = body_of(self.request.frame)
        network = self.target if body is None else body.network
        return first_anchor(network, body, self.request.frame.lineage)


def accept(site: Site, request: Request, *, app: str | None) -> AcceptedRequest[Request]:
    """Accepts a request, or refuses it before anything of it is built.

    Args:
        site: The site.
        request: A task, or a request for the probes alone.
        app: SHA-256 of the Flower app that asks; "" where it is not known; None where it is the
            site itself that has asked for a network, and a task is not answered.

    Raises:
        PolicyRefusal: If the site's policy forbids it.
        LayoutMismatch: If this installation builds another network by that name, or the anchor or
            a candidate is not a network of this kind.
        DataError: If the site's examples don't suit the network.
        ConfigError: If the site is to compute on a GPU, and there is none.
    """
    device = device_of(site.config.device)
    policy, frame, count = site.config.policy, request.frame, len(site.train.y)
    if isinstance(request, Task):
        if app is not None:
            nothing = "body" if frame.body_layout else "update"
            allow_answer(policy, min(leaving(site, frame), default=nothing), app)
            site.sent.allow_round(policy, utc_now())
        for recipe in recipes_of(request, count):
            allow_request(policy, frame.target, recipe, count)
    else:
        allow_answer(policy, "probe", app)
    allow_request(policy, frame.target, frame.probe, count)
    _allow_candidates(policy, request)
    work = work_of(site, request)
    allow_work(policy, work)
    if not site.config.privacy.epsilon:
        # With a budget the noise hides every example, however few there are in a gradient.
        allow_batch(policy, work, count)
    if frame.body_layout:
        site = own_classes(site)
    require_scales(site, frame.scales)
    # The shape is the site's own, and the size is known, before anything is built.
    site.require_fit(frame.input_shape, frame.classes)
    size = parameter_count(frame.target, frame.input_shape, frame.classes, frame.frozen)
    allow_network(policy, size, work)
    site, frozen = on_features(site, frame.frozen)
    frame = replace(frame, frozen=frozen)
    request = replace(request, frame=frame)
    target, body = target_of(frame), body_of(frame)
    _require_vectors(request, target, body)
    if body is not None:
        allow_heads(site, frame)
        allow_body(site, request, body)
        body = with_classes(body, site.classes).to(device)
        target = body.head
    elif request.anchor is not None and not site.config.privacy.epsilon:
        _allow_anchor(site, request, request.anchor, target)
    return AcceptedRequest(site=site, request=request, target=target.to(device), body=body)


def require_scales(site: Site, digest: str) -> None:
    """Raises DataError unless numbers are scaled as all sites have agreed, if they have."""
    if digest and scales_digest(site.config.data.scales) != digest:
        raise DataError(
            "the site's numbers are not scaled as the federation has agreed",
            where="[data] scale",
            expected='"agreed"',
            got=repr(site.config.data.scale),
            remedy=f"Write it into site.toml, then run f2l-site data scales {site.file}.",
            code="scales-not-agreed",
        )


def leaving(site: Site, frame: Frame) -> frozenset[str]:
    """The kinds of answers to a task that may leave, some of "update" and "body".

    With a privacy budget no heads leave, only the noised body.
    """
    allowed = set(site.config.policy.answers.split())
    if not frame.body_layout:
        return frozenset(allowed & {"update"})
    kinds = {"body"} if site.config.privacy.epsilon else {"update", "body"}
    return frozenset(allowed & kinds)


def work_of(site: Site, request: ProbeRequest | Task) -> Work:
    """The work that a request asks of a site."""
    frame, count, networks = request.frame, len(site.train.y), 0
    steps, examples = 0 if frame.body_layout else frame.episodes * frame.probe.steps, 0
    if isinstance(request, Task):
        networks = max(len(request.candidates), 1)
        for recipe in recipes_of(request, count):
            steps += networks * recipe.steps
            if recipe.steps:
                examples = min(recipe.batch or count, count)
        if frame.episodic is not None:
            steps += episodic_steps(site, request)
    sent = request.anchor
    return Work(
        episodes=frame.episodes,
        networks=networks,
        steps=steps,
        examples=examples,
        anchor="first" if sent is None else sha256(sent.numpy().data).hexdigest()[:12],
    )


def recipes_of(task: Task, examples: int) -> tuple[Recipe, ...]:
    """The gradient steps on whole networks or heads that a task asks for."""
    if (shared := task.frame.shared) is None:
        return (task.recipe,)
    return shared.own_recipe(examples, task.release), shared.update_recipe(examples)


def episodic_steps(site: Site, task: Task) -> int:
    """The episodic steps of the body that a task asks for; few with a privacy budget."""
    episodic, privacy = task.frame.episodic, site.config.privacy
    body = body_of(task.frame)
    if episodic is None or body is None or body.is_frozen:
        # Nothing of a frozen body is trained.
        return 0
    asked = episodic.steps if task.release else episodic.first
    return min(asked, privacy.body_steps) if privacy.epsilon else asked


def target_of(frame: Frame) -> Target:
    """The network that is generated, whole or a head for the most classes.

    Raises:
        LayoutMismatch: If this installation builds another network by that name.
    """
    body = body_of(frame)
    whole = cached_target(frame.target, frame.input_shape, frame.classes, frame.frozen)
    target = whole if body is None else body.head
    _require_layout(frame.target, frame.layout, target.layout.digest)
    return target


def body_of(frame: Frame) -> Body | None:
    """The body of a request under a head for the most classes; None for whole networks.

    Raises:
        LayoutMismatch: If this installation builds another body by that name.
        PolicyRefusal: If the request has a body without its settings, or of an unknown kind.
    """
    if frame.adapt == "all" and not frame.body_layout:
        return None
    if frame.adapt != "head" or frame.episodic is None or frame.head is None:
        raise PolicyRefusal("adapted-part-unknown")
    body = _cached_body(frame.target, frame.input_shape, frame.classes, frame.frozen)
    _require_layout(frame.target, frame.body_layout, body.layout.digest)
    return body


def _require_layout(name: str, asked: str, own: str) -> None:
    if own != asked:
        raise LayoutMismatch(
            "the server has another network by this name",
            where=name,
            expected=asked[:12],
            got=own[:12],
            remedy="Install the same version on both sides.",
        )


@lru_cache(maxsize=4)
def cached_target(
    name: str, input_shape: tuple[int, ...], classes: int, frozen: FrozenPart | None
) -> Target:
    """The network of this name, built once; arguments as in `build_target`."""
    return build_target(name, input_shape, classes, frozen)


@lru_cache(maxsize=4)
def _cached_body(
    name: str, input_shape: tuple[int, ...], classes: int, frozen: FrozenPart | None
) -> Body:
    return Body.of(cached_target(name, input_shape, classes, frozen))


def _allow_candidates(policy: PolicyConfig, request: ProbeRequest | Task) -> None:
    """Raises PolicyRefusal for candidates that the policy excludes or no release has made."""
    candidates = request.candidates if isinstance(request, Task) else ()
    handed_out = request.frame.nearest or any(NEAREST in kinds for kinds in candidates)
    if handed_out and not policy.nearest:
        raise PolicyRefusal("nearest-not-allowed")
    if request.frame.to_sites and not policy.release_to_sites:
        raise PolicyRefusal("release-not-allowed")
    if candidates and isinstance(request, Task) and not request.release:
        raise PolicyRefusal("candidates-without-release")


def _require_vectors(request: ProbeRequest | Task, target: Target, body: Body | None) -> None:
    """Raises unless every network in a request is one of this kind, with finite numbers."""
    size = target.layout.size
    anchor_size = size if body is None else body.layout.size
    candidates = request.candidates if isinstance(request, Task) else ()
    named = []
    for kind, vector in (pair for kinds in candidates for pair in kinds.items()):
        if body is not None:
            # The head of a context that the site sent before its classes changed is not its width.
            classes_of_width(len(vector), target.layout)
        named.append((kind, vector, size if body is None else len(vector)))
    if request.anchor is not None:
        named.append((ANCHOR, request.anchor, anchor_size))
    served = request.body if isinstance(request, Task) else None
    if served is not None:
        named.append((BODY, served, anchor_size))
    for kind, vector, length in named:
        if len(vector) != length:
            raise LayoutMismatch(
                f"the {kind if kind in (ANCHOR, BODY) else 'candidate'} has another size",
                where=kind,
                expected=str(length),
                got=str(len(vector)),
            )
        if not bool(vector.isfinite().all()):
            raise PolicyRefusal("not-finite")


def own_classes(site: Site) -> Site:
    """The site with its own classes; raises DataError if there are too few for a head."""
    own = site.with_own_classes()
    if own.classes < FEWEST:
        raise DataError(
            "the site has too few classes to tell apart",
            where=f"site {site.config.name}",
            expected=f"at least {FEWEST}",
            got=str(own.classes),
            code="too-few-classes",
        )
    return own


def allow_heads(site: Site, frame: Frame) -> None:
    """Raises PolicyRefusal if a head that leaves would be made on too few examples."""
    support = int(site.train.y.bincount().clamp(max=frame.shots).sum())
    private = site.config.privacy.epsilon
    if not private and support < site.config.policy.minimum_head_examples:
        raise PolicyRefusal("too-few-examples-a-head")


def _allow_anchor(site: Site, request: ProbeRequest | Task, sent: Tensor, target: Target) -> None:
    """Raises PolicyRefusal for an anchor that would tell more than class means at its first step.

    The lineage's first anchor is rebuilt and compared. Any other has an output layer of zeros, or
    labels are shared, as site and server agree, and enough examples take part.
    """
    has_zero_head = bool(sent.equal(recentred(target, sent)))
    if isinstance(request, Task) and not request.release:
        first = anchor(target, request.frame.lineage)
        # Another processor may round the last digits differently.
        if not has_zero_head or not torch.allclose(sent, first, rtol=1e-4, atol=1e-6):
            raise PolicyRefusal("anchor-not-rebuilt")
    if has_zero_head:
        return
    policy = site.config.policy
    if not (policy.shared_labels and request.frame.shared_labels):
        raise PolicyRefusal("anchor-with-head")
    frame, labels = request.frame, site.train.y
    support = int(labels.bincount().clamp(max=frame.shots).sum())
    if frame.shared is not None:
        support = min(len(labels), frame.shots * frame.classes)
    if support < policy.minimum_head_examples:
        raise PolicyRefusal("too-few-examples-a-step")
