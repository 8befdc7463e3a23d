"""The scales of a federation: the figures of its sites, and what they have come to, for good."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.core.private_files import private_folder
from f2l_fed.data.readers.agreed_scales import (
    FEWEST_SITES,
    Scales,
    ScalingConfig,
    are_scales,
    combined,
    scales_text,
    undecided,
)
from f2l_fed.errors import ConfigError, UsageError, WireError

SCALES_FILE = "scales.json"
"""Name of the file with the scales that sites have agreed on, in the federation's folder."""

_FIGURES = "scales"
"""Folder of the sites' figures until then."""

_LOCK = "scales.lock"


def agreed_scales(root: Path, config: ScalingConfig) -> Scales:
    """The scales of all sites, by column; none where each fits its own, or they are not agreed yet.

    Args:
        root: The federation's folder.
        config: Its settings.

    Raises:
        ConfigError: If the file with them is damaged.
    """
    if config.agreed or not config.sites:
        return config.agreed
    path = root / SCALES_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scales = _scales_of(values)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, WireError) as error:
        raise ConfigError(
            "the scales that sites have agreed on can't be read",
            where=str(path),
            remedy="Restore the file from a backup; every site has it too, in its state folder.",
        ) from error
    return scales


def require_agreed(root: Path, config: ScalingConfig, sites: Collection[str]) -> None:
    """Raises UsageError if sites are to agree on scales and have not yet.

    Args:
        root: The federation's folder.
        config: Its settings.
        sites: Names of the registered sites.
    """
    if not config.sites or agreed_scales(root, config):
        return
    with locked(root / _LOCK):
        # The number may have been lowered since the last site has told its figures.
        told, open_ = _combine(root, config, sites)
    if not agreed_scales(root, config):
        names = ""
        if open_:
            names = f", of which fewer than {FEWEST_SITES} name {', '.join(map(repr, open_))}"
        raise UsageError(
            "the sites have not agreed on scales yet",
            where="scaling.sites",
            expected=f"the figures of {config.sites} sites",
            got=f"those of {len(told)}{': ' + ', '.join(told) if told else ''}{names}",
            remedy="Let the others run f2l-site data scales, or lower scaling.sites in "
            "federation.toml; with 0 each site fits its own.",
        )


def take_figures(
    root: Path, config: ScalingConfig, site: str, values: Any, sites: Collection[str]
) -> int:
    """Takes a site's figures; those of enough sites are combined at once, and then removed.

    Args:
        root: The federation's folder.
        config: Its settings.
        site: Name of the site, authenticated.
        values: What it has posted.
        sites: Names of the registered sites; figures of others don't count.

    Returns:
        The number of sites that have told theirs.

    Raises:
        WireError: If these are no figures.
        UsageError: If this federation agrees on no scales.
        DataError: If the figures of enough sites have no column in common.
    """
    if not config.sites or config.agreed:
        raise UsageError("the sites of this federation are not asked for scales")
    figures = _scales_of(values.get("figures") if isinstance(values, Mapping) else None)
    with locked(root / _LOCK):
        if (root / SCALES_FILE).exists():
            return config.sites
        folder = root / _FIGURES
        private_folder(folder)
        write_atomically(folder / f"{site}.json", scales_text(figures), mode=0o600)
        told, _ = _combine(root, config, sites)
    return len(told)


def forget_figures(root: Path, site: str) -> None:
    """Removes what a site has told; scales that are agreed already stay."""
    if (root / _FIGURES).exists():
        with locked(root / _LOCK):
            (root / _FIGURES / f"{site}.json").unlink(missing_ok=True)


def _combine(
    root: Path, config: ScalingConfig, sites: Collection[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Combines the figures of sites if they are enough, and then removes them.

    Returns:
        The sites that have told theirs, and columns that are waited for: most of them have these,
        but too few. A column that few sites have is left out.
    """
    told, folder = _told(root, sites), root / _FIGURES
    if len(told) < config.sites:
        return told, ()
    each = [_scales_of(json.loads((folder / f"{name}.json").read_text())) for name in told]
    if not (open_ := undecided(each)):
        write_atomically(root / SCALES_FILE, scales_text(combined(each)), mode=0o600)
        shutil.rmtree(folder)
    return told, open_


def _told(root: Path, sites: Collection[str]) -> list[str]:
    names = {path.stem for path in (root / _FIGURES).glob("*.json")}
    return sorted(names & set(sites))


def _scales_of(values: Any) -> Scales:
    """Scales from plain values; raises WireError for anything else."""
    refusal = WireError("no figures of columns", expected="mean and spread by column, finite")
    if not isinstance(values, Mapping) or not all(map(_is_pair, values.values())):
        raise refusal
    try:
        scales = {str(name): tuple(map(float, pair)) for name, pair in values.items()}
    except OverflowError as error:
        raise refusal from error
    if not scales or not are_scales(scales, constant=True):
        raise refusal
    return scales


def _is_pair(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(n) in (int, float) for n in value)
    return numbers and len(value) == 2
