"""The agreement on scales: a site tells its figures, and takes what all of them come to."""

from __future__ import annotations

import http.client
import json
import math
import secrets
import ssl
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from clients.onboarding.https_connection import failure_reason, https_connection
from clients.onboarding.server_connection import federation_facts, tls_of_site
from clients.site.agreed_scales import TOLD_FILE, keep_scales, kept_scales
from clients.site.policy import SCALES, allow_answer
from clients.site.site_examples import training_rows
from clients.site.site_folder import SiteFolder
from f2l_fed.core.private_files import private_folder
from f2l_fed.data.readers.agreed_scales import (
    LARGEST,
    Scales,
    ScalingConfig,
    are_scales,
    noised_figures,
    number_columns,
    own_figures,
    sums_length,
)
from f2l_fed.data.readers.config import AGREED
from f2l_fed.data.readers.labels import tidy_name
from f2l_fed.errors import DataError, F2LError, PolicyRefusal
from f2l_fed.wire.agreement import Agreement
from f2l_fed.wire.enrolment import LARGEST_ANSWER_BYTES, SCALES_PATH, TOLD

_TIMEOUT_S = 30.0
_LONGEST_REASON = 400

_MOST_NOISE = 0.1
"""Largest standard deviation of a noised mean, in halves of the range, that says something."""


def take_scales(site: SiteFolder, *, now: datetime) -> ScalingConfig:
    """Asks the server for the scales, and keeps them if they are agreed.

    Args:
        site: A site with a certificate.
        now: This machine's time, with a time zone.

    Returns:
        The scales, or how sites come to agree on them.

    Raises:
        F2LError: If the server can't be asked, or other scales are kept already.
    """
    agreement = Agreement.from_json(federation_facts(site, now=now))
    if agreement is None:
        raise F2LError(
            "the server tells nothing of the federation's scales",
            where=site.server.address or "[server]",
            remedy=f"Run f2l-site check {site.file}.",
        )
    return _kept(site, agreement)


def with_scales_of_server(site: SiteFolder, *, now: datetime) -> SiteFolder:
    """The site, after a try to get the agreed scales where it waits for them.

    Args:
        site: The site.
        now: This machine's time, with a time zone.
    """
    data = site.config.data
    if data.scale != AGREED or data.scales or not site.server.certificate:
        return site
    # Without them the examples can't be read, which says what to do.
    with suppress(F2LError):
        take_scales(site, now=now)
    return SiteFolder.read(site.file)


def tell_scales(
    site: SiteFolder, scaling: ScalingConfig, *, now: datetime
) -> tuple[ScalingConfig, int]:
    """Tells the server the figures of this site's columns, and keeps the scales if they are agreed.

    Args:
        site: A site with a certificate.
        scaling: How sites come to agree, from `take_scales`.
        now: This machine's time, with a time zone.

    Returns:
        As `take_scales`, and the number of sites that have told theirs.

    Raises:
        PolicyRefusal: If the site's policy or privacy budget forbids it; nothing is sent then.
        DataError: If there are no columns of numbers.
        F2LError: If the server refuses or can't be reached.
    """
    policy = site.config.policy
    allow_answer(policy, SCALES, None)
    context = tls_of_site(site, now=now)
    if context is None:
        raise F2LError("the site has no server that knows it", where="[server]")
    # What was told once is told again: no more of the data, and no more of a privacy budget.
    figures = kept_scales(site.state, TOLD_FILE) or _figures(site, scaling)
    return _sent(site, figures, context, now)


def _figures(site: SiteFolder, scaling: ScalingConfig) -> Scales:
    """The figures of a site's columns, which are kept before they leave."""
    policy = site.config.policy
    raw, rows = training_rows(site.path, site.config)
    names = number_columns(raw, site.config.data)
    if not names:
        raise DataError("there are no columns of numbers, so nothing to agree on", where=raw.where)
    if len(rows) < policy.minimum_examples:
        raise PolicyRefusal("too-few-examples")
    private_folder(site.state)
    budget = site.budget
    if budget is None:
        figures = own_figures(raw, rows, site.config.data, fewest=policy.minimum_examples)
    else:
        if {*names} - {tidy_name(name) for name in scaling.ranges}:
            raise PolicyRefusal("scales-without-range")
        length = sums_length(len(names))
        noise = length * budget.spend([(1.0, 1)], most=_MOST_NOISE * len(rows) / length)
        # Nobody may be able to draw it again.
        rng = np.random.default_rng(secrets.randbits(128))
        drawn = noise * rng.standard_normal((len(names), 3))
        figures = noised_figures(
            raw, rows, site.config.data, scaling.ranges, drawn, fewest=noise / _MOST_NOISE
        )
    if not figures:
        raise PolicyRefusal("too-few-examples")
    if wrong := [
        name for name, pair in figures.items() if not are_scales({name: pair}, constant=True)
    ]:
        raise DataError(
            "numbers are too large to be scaled",
            where=f"column {wrong[0]!r}",
            expected=f"at most {LARGEST:g}",
            remedy="They may stand for gaps: name them in [data] gaps, or leave the column out.",
        )
    keep_scales(site.state, figures, TOLD_FILE)
    return figures


def _sent(
    site: SiteFolder, figures: Scales, context: ssl.SSLContext, now: datetime
) -> tuple[ScalingConfig, int]:
    """Records figures, then posts them."""
    body = json.dumps({"figures": {name: list(pair) for name, pair in figures.items()}})
    fields = {
        f"{place}. {what}": pair[n]
        for place, pair in enumerate(figures.values(), 1)
        for n, what in enumerate(("mean", "spread"))
        if math.isfinite(pair[n])
    }
    content = RecordDict({"scales": ConfigRecord({"columns": list(figures), **fields})})
    budget = site.budget
    site.sent.allow(site.config.policy, content, now)
    site.sent.record(SCALES, 0, content, now, budget=budget.spent() if budget else None)
    connection = https_connection(site.server, context, timeout_s=_TIMEOUT_S)
    try:
        connection.request("POST", SCALES_PATH, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        values: Any = json.loads(reply.read(LARGEST_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise F2LError(
            "the server can't be reached",
            where=site.server.address,
            got=failure_reason(error, site.server),
        ) from error
    except (ValueError, RecursionError):
        values = {}
    finally:
        connection.close()
    agreement = Agreement.from_json(values) if isinstance(values, dict) else None
    if reply.status != 200 or agreement is None:
        reason = str(values.get("error", "")) if isinstance(values, dict) else ""
        raise F2LError(
            "the server did not take the scales",
            where=site.server.address,
            got=reason[:_LONGEST_REASON].rstrip(".") or f"status {reply.status}",
            remedy="Ask the administrator.",
        )
    told = values.get(TOLD)
    return _kept(site, agreement), told if type(told) is int else 0


def _kept(site: SiteFolder, agreement: Agreement) -> ScalingConfig:
    if agreement.scaling.agreed:
        private_folder(site.state)
        keep_scales(site.state, agreement.scaling.agreed)
    return agreement.scaling
