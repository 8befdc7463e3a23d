"""A network that a site makes itself from the release that it has fetched; nothing of it leaves.

Context, candidates, choice and fine-tuning are those of a request to the server, by the same
functions. Since nothing leaves, the limits on what leaves do not apply, and no noise is needed: a
site with a privacy budget uses all of its examples and spends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from clients.site.model_store import Model, ModelStart
from clients.site.policy import ANSWERS
from clients.site.privacy_budget import PrivacyConfig
from clients.site.site import Site
from clients.training.accepted_request import accept, target_of
from clients.training.fine_tuning import FineTuned
from clients.training.requested_network import made_network
from clients.training.task import respond_to_probe
from f2l_fed.generator.candidates import candidates_of_site
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.release_file import ReleaseFile
from f2l_fed.local_training.selection import select_in_parts
from f2l_fed.targets.head_rows import padded
from f2l_fed.wire.messages import ProbeRequest, Task


def network_from_release(
    site: Site, release: ReleaseFile, *, steps: int | None = None
) -> tuple[Model, ModelStart, FineTuned]:
    """Makes a network from a release; nothing is kept yet, but the body that was accepted.

    Args:
        site: The site.
        release: The file that it has fetched.
        steps: Gradient steps; None for as many as the release says.

    Returns:
        The network, its start, and both with loss and accuracy.

    Raises:
        PolicyRefusal: If the site's policy forbids the network or the work.
        LayoutMismatch: If the release is of another network than this installation builds.
        ReleaseError: If its tensors are not those of a generator for the network.
        DataError: If the site's examples don't suit the network.
        TargetError: If the network overflows.
    """
    own = _for_itself(site)
    return made_network(own, task_from_release(own, release), steps=steps)


def task_from_release(site: Site, release: ReleaseFile) -> Task:
    """The task of a release with the candidates that a site makes; of draws, the best start alone.

    Raises:
        PolicyRefusal, LayoutMismatch, ReleaseError, DataError: As of `network_from_release`.
    """
    task = release.task
    request = ProbeRequest(frame=task.frame, anchor=task.anchor, chain=task.chain)
    probes = respond_to_probe(site, request, app=None).probes
    target = target_of(task.frame)
    generator = release.generator(target)
    if task.frame.body_layout:
        probes = padded(probes, target.layout)
    expected = generator.expect(probes)[0]

    def parts(generator: Generator) -> Iterator[dict[str, Tensor]]:
        name, config = site.config.name, release.candidates
        return candidates_of_site(
            generator, task.frame, name, probes[0], expected, config, target.layout
        )

    if task.frame.body_layout or task.frame.shared is not None:
        return replace(task, candidates=tuple(parts(generator)))
    accepted = accept(site, request, app=None)
    train, target = accepted.site.train, accepted.target
    drawn = parts(generator.to(target.device))
    kind, start = select_in_parts(target, drawn, train.x, train.y, keep=task.keep)
    return replace(task, candidates=({kind: start.cpu()},))


def _for_itself(site: Site) -> Site:
    """The site without the limits and the noise of what leaves."""
    config = site.config
    policy = replace(
        config.policy, answers=" ".join(ANSWERS), minimum_batch=1, minimum_head_examples=1
    )
    return replace(site, config=replace(config, policy=policy, privacy=PrivacyConfig()))
