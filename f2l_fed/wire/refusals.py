"""The catalogue of refusals: every code that a site or the server gives, in words for both sides.

Only codes travel. Each side has the sentence here: what is the matter, and what the site's operator
can do. A code of an older or newer version that is not listed is shown as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from f2l_fed.errors import (
    ConfigError,
    DataError,
    F2LError,
    LayoutMismatch,
    PolicyRefusal,
    TargetError,
    WireError,
    shown,
)

LONGEST_CODE = 64
"""Most characters of a code; a longer one of an older site is cut."""

FAILED = "failed"
TASK_ENDED = "task-ended"
OLD_PROTOCOL = "protocol-too-old"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """The reason that a code stands for.

    Args:
        text: The fault, as a clause about the site, for both sides.
        remedy: The operator's way to mend it, as a sentence.
        able: Whether the site may take part all the same the next time: it is a failure of this
            round, which counts for the quorum. A site that is not able does not count.
    """

    text: str
    remedy: str
    able: bool = False


def _limit(text: str, key: str) -> Reason:
    """A refusal by a limit of the site's policy."""
    return Reason(
        text=text,
        remedy=f"Change [policy] {key} in site.toml if the federation may ask for it; f2l-site "
        "check compares both.",
    )


_SERVER = "Tell the administrator; the site's log has the details."
_CHECK = "Run f2l-site check; it names everything that is wrong."
_LOG = "Look into the site's log, daemon.log in its state folder."
_LATER = "Nothing has to be done; the limit is per day, under [policy] in site.toml."

CATALOGUE: dict[str, Reason] = {
    # The site's policy.
    "target-not-allowed": _limit("the site does not allow this kind of network", "targets"),
    "too-many-steps": _limit("more gradient steps are asked for than allowed", "maximum_steps"),
    "too-many-steps-in-all": _limit(
        "more gradient steps in one message are asked for than allowed", "maximum_total_steps"
    ),
    "learning-rate-too-high": _limit("the learning rate is higher than allowed", "maximum_lr"),
    "momentum-too-high": _limit("the momentum is higher than allowed", "maximum_momentum"),
    "too-many-episodes": _limit(
        "more networks or contexts are asked for than allowed", "maximum_episodes"
    ),
    "too-few-examples-a-step": _limit(
        "a gradient would be on fewer examples than allowed", "minimum_batch"
    ),
    "too-few-examples-a-head": _limit(
        "an output layer would be made on fewer examples than allowed", "minimum_head_examples"
    ),
    "network-too-large": _limit("the network is larger than allowed", "maximum_parameters"),
    "upload-too-large": _limit("the answer would be larger than allowed", "maximum_upload_bytes"),
    "request-too-large": _limit("the request is larger than allowed", "maximum_download_bytes"),
    "app-not-allowed": _limit("the server's app is not an allowed one", "apps"),
    "answer-not-allowed": _limit("this kind of answer may not leave", "answers"),
    "nearest-not-allowed": _limit(
        "networks of other sites are handed out, which the site does not allow", "nearest"
    ),
    "release-not-allowed": _limit(
        "the federation gives its compact generator to its sites, which this one does not allow",
        "release_to_sites",
    ),
    "body-changed-too-much": _limit(
        "the shared body has changed more than allowed since the last one", "maximum_body_change"
    ),
    "too-many-rounds-today": Reason(
        text="the site has taken part as often today as it allows", remedy=_LATER
    ),
    "too-many-answers-today": Reason(
        text="the site has answered as often today as it allows", remedy=_LATER
    ),
    "privacy-budget-spent": Reason(
        text="the site's privacy budget is spent",
        remedy="Nothing more leaves. A larger epsilon under [privacy] in site.toml protects less.",
    ),
    # The site's data and installation.
    "too-few-examples": Reason(
        text="the site has too few examples",
        remedy="Add examples, or lower [policy] minimum_examples in site.toml.",
    ),
    "scales-not-agreed": Reason(
        text="the site's numbers are not scaled as the federation has agreed",
        remedy='Write scale = "agreed" under [data] in site.toml, then run f2l-site data scales.',
    ),
    "scales-below-noise": Reason(
        text="the noise of the site's privacy budget would hide its scales",
        remedy="Nothing was sent. The scales of the other sites hold here too, once they are "
        "agreed: run f2l-site data scales again then.",
    ),
    "scales-without-range": Reason(
        text="a site with a privacy budget tells its scales within known ranges alone",
        remedy="Ask the administrator for scaling.ranges of all columns.",
    ),
    "too-few-classes": Reason(
        text="the site has too few classes to tell apart",
        remedy="Add examples of another class.",
    ),
    "too-many-classes": Reason(
        text="the site has more classes than the federation's networks have outputs",
        remedy="Name the federation's labels under labels in site.toml, or leave classes out.",
    ),
    "inputs-of-another-shape": Reason(
        text="the site's inputs have another shape than the federation's", remedy=_CHECK
    ),
    "data-unusable": Reason(text="the site's examples can't be used", remedy=_CHECK),
    "configuration-invalid": Reason(text="the site's configuration is invalid", remedy=_CHECK),
    "other-network": Reason(
        text="site and server build different networks by the same name",
        remedy="Install the same version of F2L-Fed on both sides.",
    ),
    "network-not-built": Reason(
        text="the network can't be built at the site",
        remedy="Install the same version of F2L-Fed on both sides, and the network's own module.",
    ),
    "other-backbone": Reason(
        text="the site has another backbone than the federation adapts, or none",
        remedy="Install the administrator's file and name it under [backbone] in site.toml; "
        "f2l-site check tells both digests.",
    ),
    "message-not-understood": Reason(
        text="the site does not understand the server's message",
        remedy="Install the same version of F2L-Fed on both sides.",
    ),
    OLD_PROTOCOL: Reason(
        text="the site's version is too old for this federation",
        remedy="Update F2L-Fed at the site.",
    ),
    # What a server asks that no site may answer.
    **{
        code: Reason(text=text, remedy=_SERVER)
        for code, text in {
            "adapted-part-unknown": "the task is of a kind that the site does not know",
            "anchor-not-rebuilt": "the start of the training is not the one that the site rebuilds",
            "anchor-with-head": "the start of the training has an output layer, which may tell of "
            "single examples",
            "body-missing": "the task lacks the shared body",
            "body-not-in-its-chain": "the shared body is not the one that its history names",
            "body-not-rebuilt": "the first shared body is not the one that the site rebuilds",
            "body-of-another-lineage": "the shared body does not go on from those that the site "
            "knows",
            "candidates-without-release": "the task has networks that no release has made",
            "no-start-without-choice": "the task has no start that a site with a privacy budget "
            "may take",
            "not-finite": "the task has numbers that are not finite",
            "too-many-contexts": "the task asks for more contexts than one",
        }.items()
    },
    # Failures of a round, after which the site may take part again.
    "diverged": Reason(
        text="the training at the site has diverged",
        remedy="The site keeps its network. If it happens again, look for very large numbers in "
        "the data with f2l-site data preview, and tell the administrator.",
        able=True,
    ),
    "took-too-long": Reason(
        text="the task took longer than the site allows",
        remedy="Raise [limits] task_seconds in site.toml, or free the machine.",
        able=True,
    ),
    FAILED: Reason(text="the site's program has failed", remedy=_LOG, able=True),
    TASK_ENDED: Reason(text="the task's process has ended early", remedy=_LOG, able=True),
    # Ends that the server gives an answer or its absence.
    "silent": Reason(
        text="no answer has come in time",
        remedy="Check that f2l-site run is running and that the machine is fast enough.",
        able=True,
    ),
    "undeliverable": Reason(
        text="the message could not be delivered",
        remedy="Check that f2l-site run is running.",
        able=True,
    ),
    "garbage": Reason(
        text="the answer is not in the agreed form",
        remedy="Install the same version of F2L-Fed on both sides.",
        able=True,
    ),
    "round": Reason(text="the answer is for another round", remedy=_LOG, able=True),
    "count": Reason(text="the answer has another number of networks", remedy=_LOG, able=True),
    "start": Reason(text="the answer names a start that was not sent", remedy=_LOG, able=True),
    "admission": Reason(
        text="the update did not pass the server's checks",
        remedy="The site keeps its network. Ask the administrator what was found.",
        able=True,
    ),
    "quarantined": Reason(
        text="the update waits in quarantine until the administrator has looked at it",
        remedy="The site keeps its network. Ask the administrator to release the update.",
        able=True,
    ),
}
"""Every reason by its code."""

_FORMER = {
    "DataError": "data-unusable",
    "ConfigError": "configuration-invalid",
    "LayoutMismatch": "other-network",
    "TargetError": "network-not-built",
    "WireError": "message-not-understood",
}
"""Codes of older versions, names of errors, with those of today."""

_KINDS: tuple[tuple[type[F2LError], str], ...] = (
    (DataError, "data-unusable"),
    (ConfigError, "configuration-invalid"),
    (LayoutMismatch, "other-network"),
    (TargetError, "network-not-built"),
    (WireError, "message-not-understood"),
)


def code_of(error: F2LError) -> str:
    """The code of an error at a site, all that the server hears of it.

    >>> code_of(PolicyRefusal("too-many-steps")), code_of(DataError("a secret"))
    ('too-many-steps', 'data-unusable')
    """
    code = error.what if isinstance(error, PolicyRefusal) else error.code
    if code in CATALOGUE:
        return code
    return next((known for kind, known in _KINDS if isinstance(error, kind)), FAILED)


def reason_of(code: str) -> Reason:
    """The reason of a code; one that is not listed stands for itself, cut and made printable.

    >>> reason_of("DataError").text
    "the site's examples can't be used"
    >>> reason_of("gone fishing").text
    'gone fishing'
    """
    known = CATALOGUE.get(_FORMER.get(code, code))
    if known is not None:
        return known
    return Reason(text=shown(code, LONGEST_CODE), remedy=_LOG, able=True)


def told(code: str) -> str:
    """A refusal as administrators read it: the sentence and its code.

    >>> told("too-few-examples")
    'the site has too few examples (too-few-examples)'
    """
    reason = reason_of(code)
    seen = shown(code, LONGEST_CODE)
    return reason.text if reason.text == seen else f"{reason.text} ({seen})"
