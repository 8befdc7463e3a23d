"""A new site's folder with a ``site.toml`` that explains itself."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from clients.onboarding import keys
from clients.onboarding.enrolment import register
from clients.onboarding.kit import read_kit
from clients.site.config import read_config
from clients.site.limits import LimitsConfig
from clients.site.policy import PolicyConfig
from clients.site.privacy_budget import PrivacyConfig
from f2l_fed.errors import DataError, UsageError

_TEMPLATE = """\
# A site of a federation. `f2l-site check` says whether this file and the data can stand.

# The site's name, as the administrator of the federation has registered it.
name = {name}

# Labelled examples: an .npz file with x and y, a .csv or .parquet file with a column "label",
# or a folder of images with one sub-folder per class. They never leave this machine.
data = {data}

# Further examples to measure on. Without them, a share of the data is kept aside for it.
validation = ""
validation_fraction = 0.2

# The labels in the order that all sites have agreed on, separated by commas, such as "ok, scratch".
# Empty: whole numbers from 0 are used as they are, anything else is numbered in sorted order.
labels = ""

# What the site keeps: the record of everything sent, its network, the daemon's log.
state = "state"

# Port of the daemon's own page, which only this machine sees; 0 for none.
page = 0

[policy]
# What this site does and lets out, whatever the server asks.
targets = {targets}
numbers = {numbers}
minimum_examples = {minimum_examples}
maximum_steps = {maximum_steps}
maximum_upload_bytes = {maximum_upload_bytes}
answers_per_day = {answers_per_day}
maximum_lr = {maximum_lr}
rounds_per_day = {rounds_per_day}
# Kinds of answers that may leave: "probe" is what the server needs to choose a network for this
# site, "update" the fine-tuned parameters.
answers = {answers}
# SHA-256 of the server's apps on whose behalf the site answers, separated by spaces; empty: any.
# What the server sends is never run here, whatever stands here.
apps = {apps}

[privacy]
# Differential privacy of everything that this site ever sends, with every example as a unit: the
# noise is chosen so that as many answers as stand here spend no more than (epsilon, delta)
# together; then the site refuses. 0 sends plain parameters. Gradients of single examples are
# shortened to max_norm.
# The network that the site keeps for itself has no noise.
epsilon = {privacy_epsilon}
delta = {privacy_delta}
answers = {privacy_answers}
max_norm = {privacy_max_norm}

[limits]
# What the daemon may take of this machine: processors (0: all), memory of each of its processes
# in MiB (0: no limit), how far other programs go first (0 to 19), seconds for one task.
cpus = {cpus}
memory_mb = {memory_mb}
niceness = {niceness}
task_seconds = {task_seconds}

[server]
# host:port of the server, and the files that came with the site's kit.
address = {address}
root_certificates = {root_certificates}
private_key = {private_key}
certificate = {certificate}
certificate_key = {certificate_key}
# Only on one machine or inside a tunnel: talk without TLS.
insecure = false
"""
_KIT = {
    "root_certificates": keys.AUTHORITY,
    "private_key": keys.FLOWER_KEY,
    "certificate": keys.CERTIFICATE,
    "certificate_key": keys.TLS_KEY,
}


def unpack(kit_file: Path, folder: Path | None, data: Path, *, now: datetime) -> Path:
    """Registers a site with its kit and writes its ``site.toml``.

    Args:
        kit_file: The kit.
        folder: Created where absent; None takes one of the site's name, here.
        data: Labelled examples.
        now: With a time zone.

    Returns:
        The ``site.toml``.

    Raises:
        ConfigError: If the kit can't be used.
        DataError: If there is nothing at ``data``.
        UsageError: If there is a site in the folder already.
        EnrolmentError: If the server refuses or can't be reached.
    """
    kit = read_kit(kit_file, now=now)
    folder = folder or Path(kit.site)
    _require_room(folder, data)
    register(kit, folder)
    return create_site(folder, kit.site, data, address=kit.server)


def create_site(folder: Path, name: str, data: Path, *, address: str = "") -> Path:
    """Writes a ``site.toml``.

    Args:
        folder: Created where absent; with the site's keys where it has an address.
        name: The site's name.
        data: Labelled examples.
        address: ``host:port`` of the server with which it is registered; "" for none.

    Returns:
        The file.

    Raises:
        UsageError: If there is one already.
        DataError: If there is nothing at ``data``.
        ConfigError: If the name can't be used.
    """
    path = _require_room(folder, data)
    folder.mkdir(parents=True, exist_ok=True)
    inside = data.resolve().is_relative_to(folder.resolve())
    values = {
        "name": name,
        "data": os.path.relpath(data, folder) if inside else str(data.resolve()),
        **asdict(PolicyConfig()),
        **asdict(LimitsConfig()),
        **{f"privacy_{key}": value for key, value in asdict(PrivacyConfig()).items()},
        "address": address,
        **(_KIT if address else dict.fromkeys(_KIT, "")),
    }
    draft = folder / ".site.toml.draft"
    # JSON's strings and numbers are TOML's too.
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    draft.write_text(_TEMPLATE.format(**written), "utf-8")
    try:
        read_config(draft)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _require_room(folder: Path, data: Path) -> Path:
    """Where the ``site.toml`` goes; raises if there is one, or there are no data."""
    path = folder / "site.toml"
    if path.exists():
        raise UsageError(
            "this is there already and is never overwritten",
            where=str(path),
            remedy="Edit it, or choose another folder.",
        )
    if not data.exists():
        raise DataError("there are no data", where=str(data), remedy="Check the path.")
    return path
