"""Templates of the report and the dashboard, and filters that format their values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sized
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader

__all__ = ["render"]

_ABSENT = "–"
_LONGEST = 200


def render(template: str, **values: Any) -> str:
    """A page from a template in ``server/reporting/templates``, every value escaped.

    Args:
        template: File name.
        values: The template's variables; keys that a record lacks are shown as a dash.
    """
    return _ENVIRONMENT.get_template(template).render(**values)


def percent(value: Any) -> str:
    """A fraction as a percentage.

    >>> percent(0.7421), percent(None)
    ('74.2%', '–')
    """
    return f"{value:.1%}" if _is_number(value) else _ABSENT


def points(value: Any) -> str:
    """A fraction in percentage points, without the sign.

    >>> points(0.0123)
    '1.2'
    """
    return f"{100 * value:.1f}" if _is_number(value) else _ABSENT


def count(value: Any) -> str:
    """A number, or the size of a collection.

    >>> count(1973), count({"site-3": "stale"}), count(None)
    ('1,973', '1', '–')
    """
    if isinstance(value, Sized) and not isinstance(value, str):
        value = len(value)
    return f"{value:,}" if _is_number(value) else _ABSENT


def megabytes(size_bytes: Any) -> str:
    """Bytes as megabytes of 10**6 bytes.

    >>> megabytes(1_973_000), megabytes(4_000)
    ('2.0', '0.004')
    """
    if not _is_number(size_bytes):
        return _ABSENT
    size = size_bytes / 1e6
    return f"{size:,.1f}" if size >= 0.1 or size == 0 else f"{size:.3f}"


def duration(seconds: Any) -> str:
    """Seconds in the unit that reads best.

    >>> duration(4.21), duration(95), duration(7260)
    ('4.2 s', '1 min 35 s', '2 h 1 min')
    """
    if not _is_number(seconds):
        return _ABSENT
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> str:
    """Any JSON value as short text.

    >>> plain(["mnist5k", "digits"]), plain(0.25), plain({"a": 1}), plain("")
    ('mnist5k, digits', '0.25', 'a 1', '–')
    """
    match value:
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.4g}"
        case Mapping():
            text = ", ".join(f"{key} {plain(part)}" for key, part in value.items())
        case list() | tuple():
            text = ", ".join(plain(part) for part in value)
        case str() | int():
            text = str(value)
        case _:
            text = ""
    return (text if len(text) <= _LONGEST else text[:_LONGEST] + "…") or _ABSENT


def by_reason(rejected: Any) -> list[str]:
    """The rejected sites, one line for each reason.

    >>> by_reason({"site-1": "stale", "site-2": "too large", "site-3": "stale"})
    ['stale: site-1, site-3', 'too large: site-2']
    """
    if not isinstance(rejected, Mapping):
        return []
    sites: dict[str, list[str]] = {}
    for site, reason in rejected.items():
        sites.setdefault(plain(reason), []).append(str(site))
    return [plain(f"{reason}: {', '.join(names)}") for reason, names in sites.items()]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted keys.

    >>> flatten({"recipe": {"steps": 15, "lr": 0.03}, "rounds": 8})
    [('recipe.steps', 15), ('recipe.lr', 0.03), ('rounds', 8)]
    """
    rows: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def moment(value: Any) -> str:
    """A time stamp: seconds since 1970 in UTC, text unchanged.

    >>> moment(0), moment("2025-01-31T10:00:00Z")
    ('1970-01-01 00:00:00 UTC', '2025-01-31T10:00:00Z')
    """
    if not _is_number(value):
        return plain(value)
    try:
        return f"{datetime.fromtimestamp(value, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("server.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for show in (percent, points, count, megabytes, duration, plain, by_reason, flatten, moment):
        environment.filters[show.__name__] = show
    return environment


_ENVIRONMENT = _environment()
