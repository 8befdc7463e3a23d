"""A new site's folder with a ``site.toml`` that explains itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clients.policy import PolicyConfig
from clients.site import read_config
from f2l_fed.errors import ConfigError, DataError, UsageError

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

[policy]
# What this site does and lets out, whatever the server asks.
targets = {targets}
numbers = {numbers}
minimum_examples = {minimum_examples}
maximum_steps = {maximum_steps}
maximum_upload_bytes = {maximum_upload_bytes}
answers_per_day = {answers_per_day}

[server]
# host:port of the server, and the files that came with the site's kit.
address = {address}
root_certificates = {root_certificates}
private_key = {private_key}
# Only on one machine or inside a tunnel: talk without TLS.
insecure = false
"""
_KIT = {"root_certificates": "ca.crt", "private_key": "flower.key"}


def create_site(folder: Path, name: str, data: Path) -> Path:
    """Writes a ``site.toml``; where the site's kit was unpacked in the folder, it is used.

    Args:
        folder: Created where absent.
        name: The site's name.
        data: Labelled examples.

    Returns:
        The file.

    Raises:
        UsageError: If there is one already.
        DataError: If there is nothing at ``data``.
        ConfigError: If the name or the kit can't be used.
    """
    path = folder / "site.toml"
    if path.exists():
        raise UsageError(
            "this is there already and is never overwritten",
            where=str(path),
            remedy="Edit it, or choose another folder.",
        )
    if not data.exists():
        raise DataError("there are no data", where=str(data), remedy="Check the path.")
    folder.mkdir(parents=True, exist_ok=True)
    inside = data.resolve().is_relative_to(folder.resolve())
    policy = PolicyConfig()
    values = {
        "name": name,
        "data": os.path.relpath(data, folder) if inside else str(data.resolve()),
        **{key: getattr(policy, key) for key in PolicyConfig.__dataclass_fields__},
        **_kit(folder),
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


def _kit(folder: Path) -> dict[str, str]:
    """The server section from an unpacked kit, or an empty one."""
    path = folder / "kit.json"
    if not path.exists():
        return {"address": "", **dict.fromkeys(_KIT, "")}
    try:
        address = str(json.loads(path.read_text("utf-8"))["server"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "the site's kit can't be read", where=str(path), got=type(error).__name__
        ) from error
    return {"address": address, **_KIT}
