"""A request that a site has accepted: its policy allows it, and network and examples fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from torch import Tensor

from clients.site.policy import allow_answer, allow_request
from clients.site.sent_log import utc_now
from clients.site.site import Site
from f2l_fed.errors import LayoutMismatch
from f2l_fed.local_training.probe import anchor
from f2l_fed.targets import Target, build_target
from f2l_fed.wire.messages import Frame, ProbeRequest, Task

Request = TypeVar("Request", bound=ProbeRequest | Task)
Request_co = TypeVar("Request_co", bound=ProbeRequest | Task, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRequest(Generic[Request_co]):
    """An accepted request with all that is needed to answer it.

    Args:
        site: The site that answers.
        request: A task, or a request for the probes alone.
        target: The network that the request is about.
    """

    site: Site
    request: Request_co
    target: Target

    @property
    def anchor(self) -> Tensor:
        """(D,) float32, the start of the probes."""
        sent = self.request.anchor
        return self.first_anchor if sent is None else sent

    @property
    def first_anchor(self) -> Tensor:
        """(D,) float32, the first anchor of the federation's lineage."""
        return anchor(self.target, self.request.frame.lineage)


def accept(site: Site, request: Request, *, app: str) -> AcceptedRequest[Request]:
    """Accepts a request, or refuses it before anything of it is built.

    Args:
        site: The site.
        request: A task, or a request for the probes alone.
        app: SHA-256 of the Flower app that asks; "" where it is not known.

    Raises:
        PolicyRefusal: If the site's policy forbids it.
        LayoutMismatch: If this installation builds another network by that name, or the anchor is
            not a network of this kind.
        DataError: If the site's examples don't suit the network.
    """
    policy, frame = site.config.policy, request.frame
    if isinstance(request, Task):
        allow_answer(policy, "update", app)
        site.sent.allow_round(policy, request.round, utc_now())
        recipe = request.recipe
    else:
        allow_answer(policy, "probe", app)
        recipe = frame.probe
    allow_request(policy, frame.target, recipe, len(site.train.y))
    target = target_of(frame)
    site.require_fit(frame.input_shape, frame.classes)
    _require_anchor(request.anchor, target)
    return AcceptedRequest(site=site, request=request, target=target)


def target_of(frame: Frame) -> Target:
    """The network that a request is about.

    Raises:
        LayoutMismatch: If this installation builds another network by that name.
    """
    target = cached_target(frame.target, frame.input_shape, frame.classes)
    if target.layout.digest != frame.layout:
        raise LayoutMismatch(
            "the server has another network by this name",
            where=frame.target,
            expected=frame.layout[:12],
            got=target.layout.digest[:12],
            remedy="Install the same version on both sides.",
        )
    return target


@lru_cache(maxsize=4)
def cached_target(name: str, input_shape: tuple[int, ...], classes: int) -> Target:
    """The network of this name, built once; arguments as in `build_target`."""
    return build_target(name, input_shape, classes)


def _require_anchor(sent: Tensor | None, target: Target) -> None:
    if sent is not None and len(sent) != target.layout.size:
        raise LayoutMismatch(
            "the anchor has another size",
            expected=str(target.layout.size),
            got=str(len(sent)),
        )
