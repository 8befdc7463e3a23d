"""The comparison of a site with the federation's task, before anything of the site is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from clients.site.policy import (
    PolicyConfig,
    Work,
    allow_answer,
    allow_batch,
    allow_network,
    allow_work,
    refused_of,
)
from clients.site.site import Site
from clients.site.site_features import installed_backbone, on_features
from clients.training.accepted_request import (
    allow_heads,
    leaving,
    own_classes,
    recipes_of,
    require_scales,
    target_of,
    work_of,
)
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal
from f2l_fed.targets.build import parameter_count
from f2l_fed.wire.agreement import Agreement, listed_names, same_labels
from f2l_fed.wire.messages import Frame, Task
from f2l_fed.wire.refusals import reason_of

_CHECKED_ELSEWHERE = "too-few-examples"
_ANY_RELEASE = "any"


def differences(site: Site, agreement: Agreement) -> list[str]:
    """The obstacles between a site and a federation's task, a sentence each with its remedy.

    Args:
        site: The site.
        agreement: What the server asks of its sites.
    """
    frame, policy = agreement.frame, site.config.policy
    found: list[str] = []

    def try_(act: Callable[[], object]) -> None:
        try:
            act()
        except PolicyRefusal as refusal:
            found.append(_sentence(refusal.what))
        except F2LError as error:
            found.append(str(error))

    try_(partial(_require_labels, site, agreement))
    own = site
    if frame.body_layout:
        try:
            own = own_classes(site)
        except F2LError as error:
            found.append(str(error))
    try_(partial(_require_features, site, agreement.features))
    try_(partial(require_scales, site, frame.scales))
    try_(partial(own.require_fit, frame.input_shape, frame.classes))
    if frame.frozen is not None:
        try_(lambda: installed_backbone(own).require(frame.frozen))
    elif own.encoding.text_bytes:
        try_(partial(on_features, own, None))
    if frame.nearest and not policy.nearest:
        found.append(_sentence("nearest-not-allowed"))
    if frame.to_sites and not policy.release_to_sites:
        found.append(_sentence("release-not-allowed"))
    try_(partial(allow_answer, policy, "probe", None))
    if not leaving(own, frame):
        found.append(_sentence("answer-not-allowed"))
    count, private = len(own.train.y), bool(site.config.privacy.epsilon)
    tasks = [_task(agreement, ""), _task(agreement, _ANY_RELEASE)]
    works = [work_of(own, task) for task in tasks]
    for task, work in zip(tasks, works, strict=True):
        for recipe in (*recipes_of(task, count), frame.probe):
            codes = refused_of(policy, frame.target, recipe, count)
            found += [_sentence(code) for code in codes if code != _CHECKED_ELSEWHERE]
        try_(partial(allow_work, policy, work))
        if not private:
            try_(partial(allow_batch, policy, work, count))
    if frame.target in policy.targets.split():
        # A module of the operator's own, or one that the policy allows: others are not built, and
        # none of forbidden size.
        try_(partial(_build, policy, frame, works))
    if frame.body_layout:
        try_(partial(allow_heads, own, frame))
    return list(dict.fromkeys(found))


def _build(policy: PolicyConfig, frame: Frame, works: Sequence[Work]) -> None:
    """Builds the network of tasks unless it is larger than allowed, which is found without it."""
    size = parameter_count(frame.target, frame.input_shape, frame.classes, frame.frozen)
    for work in works:
        allow_network(policy, size, work)
    target_of(frame)


def _task(agreement: Agreement, release: str) -> Task:
    """A task as a round would ask it, without any network."""
    frame = agreement.frame
    alone = bool(frame.body_layout) or frame.shared is not None
    networks = 0 if not release else 1 if alone else frame.episodes
    return Task(
        frame=frame,
        anchor=None,
        round=1,
        release=release,
        recipe=agreement.later if release else agreement.first,
        candidates=({},) * networks,
    )


def _require_labels(site: Site, agreement: Agreement) -> None:
    """Raises ConfigError unless labels mean at the site what they mean in the federation."""
    shared, policy = agreement.frame.shared_labels, site.config.policy
    if shared != policy.shared_labels:
        raise ConfigError(
            "labels mean the same at every site of this federation"
            if shared
            else "labels are each site's own in this federation",
            where="[policy] shared_labels",
            expected=str(shared).lower(),
            got=str(policy.shared_labels).lower(),
            remedy="Change it in site.toml.",
        )
    names = agreement.labels
    if not (shared and names):
        return
    if not same_labels(site.labels, names):
        raise ConfigError(
            "the labels are not those of the federation, in its order",
            where="labels",
            expected=listed_names(names),
            got=listed_names(site.labels) if site.labels else "numbers",
            remedy="Write labels = [...] with the federation's names into site.toml, also those "
            "that do not occur here; f2l-site data preview shows which of them do.",
        )


def _require_features(site: Site, features: tuple[str, ...]) -> None:
    """Raises ConfigError unless the features of a table are those of the federation."""
    own = site.encoding.features
    if features and site.encoding.is_table and own != features:
        lacking = tuple(name for name in features if name not in own)
        more = tuple(name for name in own if name not in features)
        pairs = (("without", lacking), ("with", more))
        found = " and ".join(f"{word} {listed_names(names)}" for word, names in pairs if names)
        raise ConfigError(
            "the features are not those of the federation, in its order",
            where="[data]",
            expected=listed_names(features),
            got=found or f"another order, {listed_names(own)}",
            remedy="Write columns, indicators, gaps and [data.categories] into site.toml so that "
            "they are; f2l-site init does so for a new site.",
        )


def _sentence(code: str) -> str:
    reason = reason_of(code)
    return f"{reason.text[0].upper()}{reason.text[1:]} ({code}). {reason.remedy}"
