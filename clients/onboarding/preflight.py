"""The check of a site before it takes part: every problem is found before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import f2l_fed
from clients.onboarding.server_connection import connection_problems, federation_facts
from clients.site.config import SiteConfig
from clients.site.policy import PolicyConfig
from clients.site.sent_log import utc_now
from clients.site.site import Site
from clients.site.site_examples import Examples, read_site_examples
from clients.site.site_features import installed_backbone
from clients.site.site_folder import SiteFolder, state_problem
from f2l_fed.core.device import device_of
from f2l_fed.core.wording import number_of
from f2l_fed.data.readers.findings import DataProblems
from f2l_fed.errors import F2LError, WireError
from f2l_fed.targets import build_target, known_targets
from f2l_fed.targets.config import ADAPTER
from f2l_fed.wire.agreement import Agreement, listed_names, same_labels

_IMBALANCE = 10
"""Ratio of the largest to the smallest class that is remarked on."""

_LARGE = 100.0
"""Absolute value of a feature that is remarked on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightReport:
    """The outcome of a check.

    Args:
        site: Name of the site; "" where the configuration can't be read.
        train: Number of examples to learn from.
        validation: Number of examples to measure on.
        input_shape: Shape of one input.
        per_class: Number of training examples of every class that occurs, by label.
        federation: What the federation is for, in words; "" where that is not known.
        problems: Obstacles to taking part, as sentences.
        remarks: Hints that are no obstacles, as sentences.
    """

    site: str = ""
    train: int = 0
    validation: int = 0
    input_shape: tuple[int, ...] = ()
    per_class: dict[str, int] = field(default_factory=dict)
    federation: str = ""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def check(
    path: Path,
    *,
    target: str = "",
    classes: int = 0,
    connect: bool = True,
    compare: Callable[[Site, Agreement], list[str]] | None = None,
    now: datetime | None = None,
) -> PreflightReport:
    """Checks a site; goes on after the first problem.

    Args:
        path: The ``site.toml``.
        target: Also checks that this network suits the examples and is allowed.
        classes: Number of outputs of that network; 0 takes the number of the site's classes.
        connect: Also connects to the server, if there is an address; asks for no task.
        compare: Finds the obstacles between the site and the federation's task, which the server
            tells, as sentences.
        now: This machine's time, with a time zone; by default the clock's.
    """
    try:
        folder = SiteFolder.read(path)
    except F2LError as error:
        return PreflightReport(problems=(str(error),))
    config, agreement = folder.config, None
    problems, remarks = _policy_problems(config.policy), []
    if problem := state_problem(folder.state):
        problems.append(problem)
    try:
        device_of(config.device)
    except F2LError as error:
        problems.append(str(error))
    if config.server.address:
        now = now or utc_now()
        found = connection_problems(folder, connect=connect, now=now)
        problems += found
        facts = federation_facts(folder, now=now) if connect and not found else {}
        try:
            agreement = Agreement.from_json(facts)
        except WireError as error:
            problems.append(f"The server's agreement about the task is damaged: {error}")
        except F2LError as error:
            problems.append(str(error))
        else:
            if connect and not found and agreement is None:
                remarks.append(
                    "The server tells nothing about its task, so it was not compared with the site."
                )
        if facts.get("nearest") is True:
            remarks.append(
                "The federation hands out exact networks, those of this site too, to other sites "
                f"(candidates.nearest); [policy] nearest = {str(config.policy.nearest).lower()}."
            )
        if agreement is not None and agreement.frame.to_sites:
            remarks.append(
                "The federation gives its compact generator, made of this site's networks too, to "
                "all of its sites (release.to_sites); [policy] release_to_sites = "
                f"{str(config.policy.release_to_sites).lower()}."
            )
    try:
        examples = read_site_examples(folder.path, config)
    except F2LError as error:
        several = error.problems if isinstance(error, DataProblems) else (error,)
        problems += _label_problems(config, agreement)
        return PreflightReport(
            site=config.name,
            federation=agreement.about() if agreement else "",
            problems=(*map(str, several), *problems),
            remarks=tuple(remarks),
        )
    site = Site.of(folder, examples)
    remarks += examples.remarks
    train, validation = site.train, site.validation
    if len(train.y) < config.policy.minimum_examples:
        problems.append(
            f"[policy] minimum_examples: the site would refuse every task: expected at least "
            f"{config.policy.minimum_examples} training examples, got {len(train.y)}."
        )
    problems += _privacy_problems(site)
    if config.backbone.file or site.encoding.text_bytes:
        found, told = _about_backbone(site)
        problems += found
        remarks += told
    if agreement is not None and compare is not None:
        problems += compare(site, agreement)
        if agreement.version != f2l_fed.__version__:
            remarks.append(
                f"The server has version {agreement.version} of F2L-Fed, this site "
                f"{f2l_fed.__version__}; both speak the same protocol."
            )
    if target:
        problems += _target_problems(site, target, classes)
    per_class = _per_class(train, site.labels)
    return PreflightReport(
        site=config.name,
        train=len(train.y),
        validation=len(validation.y),
        input_shape=tuple(train.x.shape[1:]),
        per_class=per_class,
        federation=agreement.about() if agreement else "",
        problems=tuple(problems),
        remarks=(*remarks, *_remarks(site, per_class)),
    )


def _policy_problems(policy: PolicyConfig) -> list[str]:
    names = policy.targets.split()
    problems = [
        f"[policy] targets: no network is called {name!r}: expected {', '.join(known_targets())}, "
        "or module:factory."
        for name in names
        if ":" not in name and name not in known_targets()
    ]
    return problems if names else ["[policy] targets: no network is allowed."]


def _label_problems(config: SiteConfig, agreement: Agreement | None) -> list[str]:
    """The federation's names of shared labels, where the examples can't be read by those here."""
    names = agreement.labels if agreement else ()
    if not names or same_labels(config.labels, names):
        return []
    return [f"labels: those of the federation, in its order, are {listed_names(names)}."]


def _privacy_problems(site: Site) -> list[str]:
    privacy, count = site.config.privacy, len(site.train.y)
    if (budget := site.budget) is None:
        return []
    if privacy.delta * count >= 1:
        return [
            f"[privacy] delta: {privacy.delta:g} would allow one example to be given away: "
            f"expected well below 1/{count}."
        ]
    try:
        budget.spent()
    except F2LError as error:
        return [str(error)]
    return []


def _about_backbone(site: Site) -> tuple[list[str], list[str]]:
    """Problems with the site's backbone, and remarks on it; its network is built."""
    try:
        backbone = installed_backbone(site)
        backbone.front()
    except F2LError as error:
        return [str(error)], []
    part = backbone.part
    made = number_of(part.features, "feature")
    return [], [f"The backbone makes {made}; its digest is {part.digest}."]


def _target_problems(site: Site, target: str, classes: int) -> list[str]:
    problems = []
    if target not in site.config.policy.targets.split():
        problems.append(f"[policy] targets: the network {target!r} is not allowed.")
    shape = tuple(site.train.x.shape[1:])
    classes = classes or int(site.train.y.max()) + 1
    try:
        site.require_fit(shape, classes)
        frozen = None
        if target == ADAPTER:
            frozen = installed_backbone(site).installed
        build_target(target, shape, classes, frozen)
    except F2LError as error:
        problems.append(str(error))
    return problems


def _per_class(train: Examples, labels: tuple[str, ...]) -> dict[str, int]:
    counts = train.y.bincount().tolist()
    return {
        labels[number] if labels else str(number): count
        for number, count in enumerate(counts)
        if count
    }


def _remarks(site: Site, per_class: dict[str, int]) -> list[str]:
    remarks, config, train, validation = [], site.config, site.train, site.validation
    rare, common = min(per_class, key=per_class.__getitem__), max(per_class.values())
    if per_class[rare] * _IMBALANCE <= common:
        remarks.append(
            f"The classes are out of balance: "
            f"{number_of(per_class[rare], 'training example')} of {rare!r} "
            f"against {common} of the most frequent class."
        )
    if missing := set(train.y.tolist()) - set(validation.y.tolist()):
        remarks.append(
            f"Of {number_of(len(per_class), 'class', 'classes')}, "
            f"{number_of(len(missing), 'has', 'have')} no validation example, so the "
            "measured accuracy does not speak for them."
        )
    numbers = train.x.dim() == 2 and not site.encoding.text_bytes
    if numbers and float(train.x.abs().max()) > _LARGE:
        column = int(train.x.abs().amax(0).argmax())
        remarks.append(
            f"Feature {column + 1} of {train.x.shape[1]} reaches {float(train.x.abs().max()):.3g}; "
            'networks learn better from features of similar scale: set scale = "standard" under '
            "[data]."
        )
    if not config.server.address:
        remarks.append("No server is named under [server] address, so no daemon can be run.")
    elif config.server.insecure:
        remarks.append("The connection to the server is not encrypted ([server] insecure).")
    return remarks
