"""A new site's folder, with a commented ``site.toml``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from clients.onboarding.enrolment import register
from clients.onboarding.keys import FLOWER_KEY
from clients.onboarding.kit import unpack_backbone
from clients.site.config import read_config
from clients.site.limits import LimitsConfig
from clients.site.policy import PolicyConfig
from clients.site.privacy_budget import PrivacyConfig
from f2l_fed.data.readers.agreed_settings import agreed_settings
from f2l_fed.data.readers.config import AGREED, STANDARD
from f2l_fed.data.readers.files import require_readable
from f2l_fed.errors import ConfigError, UsageError
from f2l_fed.targets.config import BackboneConfig
from f2l_fed.wire.agreement import Agreement
from f2l_fed.wire.enrolment import AUTHORITY, CERTIFICATE, KEY, NAME_RULE, is_name
from f2l_fed.wire.kit import Kit

_TEMPLATE = """\
# A site of a federation. `f2l-site check` names every problem of this file and of the data.

# The site's name, as the administrator of the federation has registered it.
name = {name}

# Further examples to measure on. Without them, a share of the data is kept aside.
validation = ""
validation_fraction = 0.2

# The labels in the order that all sites have agreed on, such as ["ok", "scratch"].
# Empty: whole numbers from 0 are used as they are, anything else is numbered in sorted order.
labels = {labels}

# Folder for the record of everything sent, the site's network and the daemon's log.
state = "state"

# Device of training and of what is drawn: "cpu", "cuda" for a GPU, or "auto" for that where there
# is one.
device = "cpu"

# Port of the daemon's own page, served to this machine alone; 0 for none.
page = 0
# Whether that page shows ten examples too, to every account of this machine.
page_data = false

[data]
# Labelled examples: an .npz file with x and y, a table (.csv, .tsv, .parquet, also .gz or a folder
# of parts) with a column of labels, or a folder of images with one sub-folder per class. They
# never leave this machine. `f2l-site data preview` shows them as they reach the network.
path = {data}
# The column of labels, columns that are no features, and a column whose rows of one value stay
# together when a share is kept aside, such as the number of a part; "folder" for sub-folders.
label = {label}
ignore = []
group = ""
# For a backbone that takes texts: their column, and the length in bytes to which all are brought.
text = {text}
text_bytes = 512
# Text tables: separator ("tab" for a tab), decimal mark and encoding; "" finds them out.
separator = ""
decimal = ""
encoding = ""
# "standard": every number gets mean 0 and standard deviation 1 over the training rows. "agreed":
# by the scales that all sites have agreed on, see `f2l-site data scales`. "": none.
# The same for the channels of images.
scale = {scale}
image_scale = ""
# Images: width and height, such as [64, 64], and "grey" or "rgb"; empty keeps their own.
resize = {resize}
mode = ""
# Labels that mark examples without one, such as ["-1"]; those are left out.
unlabelled = []
# Where sites' tables may differ: the features that all have agreed on, so that every site has the
# same ones. Columns in their order, and those with a feature that tells where values are missing.
# The texts of a column follow in a section [data.categories], such as colour = ["red", "blue"].
# Missing numbers: "indicator" (filled in, with one more feature), "median", "leave-out", "refuse".
{features}

[backbone]
# Where the federation adapts a pretrained network: the administrator's file and the code that takes
# it, module:factory, timm:NAME or, of texts, hf:FOLDER, which is installed here and which only you
# can name: a kit brings the file, and the server sends a digest.
file = {backbone}
network = {network}

[policy]
# Limits on what this site does and sends, whatever the server asks.
targets = {targets}
numbers = {numbers}
minimum_examples = {minimum_examples}
# Gradient steps of one network or probe, and of all in one message together.
maximum_steps = {maximum_steps}
maximum_total_steps = {maximum_total_steps}
maximum_episodes = {maximum_episodes}
# Least number of examples in a gradient; of a probe where shared labels allow an output layer.
minimum_batch = {minimum_batch}
minimum_head_examples = {minimum_head_examples}
maximum_momentum = {maximum_momentum}
maximum_parameters = {maximum_parameters}
maximum_download_bytes = {maximum_download_bytes}
maximum_upload_bytes = {maximum_upload_bytes}
answers_per_day = {answers_per_day}
maximum_lr = {maximum_lr}
rounds_per_day = {rounds_per_day}
# Whether this site takes part where exact networks, its own too, are handed out to other sites;
# `f2l-site check` tells when the federation does so.
nearest = {nearest}
# The same for the compact generator of a release, which is made of this site's networks too;
# without it `f2l-site release fetch` is refused.
release_to_sites = {release_to_sites}
# Kinds of answers that may leave: "probe" is what the server needs to choose a network for this
# site, "update" the fine-tuned parameters, "body" the body that all sites share, trained here.
# "scales", mean and spread of each column of numbers, leaves where it is added.
answers = {answers}
# SHA-256 of the server's apps on whose behalf the site answers, separated by spaces; empty: any.
# Code that the server sends is never run here, with any setting.
apps = {apps}
# Whether label k means the same at every site, as the server told when this site registered.
shared_labels = {shared_labels}

[privacy]
# Differential privacy of everything that this site ever sends, with every example as a unit: the
# noise is chosen so that this number of answers spends no more than (epsilon, delta) together;
# then the site refuses. Gradients of single examples, or of episodes of a body that all sites
# share, are clipped to max_norm. With epsilon = 0 plain parameters are sent. The network that the
# site keeps for itself has no noise.
epsilon = {privacy_epsilon}
delta = {privacy_delta}
answers = {privacy_answers}
max_norm = {privacy_max_norm}
# Where all sites share a body: steps of it in an answer, few with little noise or many with much,
# and their learning rate.
body_steps = {privacy_body_steps}
body_lr = {privacy_body_lr}

[limits]
# Limits on the daemon: processors (0: all), memory of each of its processes in MiB (0: no limit),
# precedence of other programs (0 to 19), seconds for one task.
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
# Only on one machine or inside a tunnel: connect without TLS.
insecure = false
"""
_SERVER_FILES = {
    "root_certificates": AUTHORITY,
    "private_key": FLOWER_KEY,
    "certificate": CERTIFICATE,
    "certificate_key": KEY,
}


def register_site(
    kit: Kit,
    file: Path,
    folder: Path | None,
    data: Path,
    *,
    network: str = "",
    label: str = "",
    text: str = "",
    resize: tuple[int, ...] = (),
) -> tuple[Path, Agreement | None]:
    """Registers a site with its kit and writes its ``site.toml``.

    Args:
        kit: The kit, its fingerprint compared.
        file: The file that it was read from, and that may hold a backbone.
        folder: Folder of the site, created where absent; None for one of the site's name, here.
        data: Labelled examples.
        network: The code that takes the kit's backbone, as the operator names it; "" for later.
        label: Their column of labels; "" where it is found out.
        text: Their column of texts that are the inputs; "" for none.
        resize: Width and height that their images get; none keeps their own.

    Returns:
        The ``site.toml``, and the agreement about the federation's task, if the server tells one.

    Raises:
        DataError: If there is nothing at ``data``.
        UsageError: If the folder holds a site already.
        ConfigError: If the kit's backbone is not the one that it names.
        EnrolmentError: If the server refuses or can't be reached.
    """
    folder = folder or Path(kit.site)
    _require_new(folder, data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Before the kit is used up.
    backbone = unpack_backbone(file, kit, folder)
    facts, agreement = register(kit, folder)
    path = create_site(
        folder,
        kit.site,
        data,
        address=kit.server,
        shared_labels=facts.shared_labels,
        labels=agreement.labels if agreement else (),
        features=agreement.features if agreement else (),
        backbone=BackboneConfig(file=backbone, network=network),
        label=label,
        text=text,
        resize=resize,
        scale=AGREED if agreement and agreement.scales_are_agreed else STANDARD,
    )
    return path, agreement


def create_site(
    folder: Path,
    name: str,
    data: Path,
    *,
    address: str = "",
    shared_labels: bool = False,
    labels: tuple[str, ...] = (),
    features: tuple[str, ...] = (),
    backbone: BackboneConfig | None = None,
    scale: str = STANDARD,
    label: str = "",
    text: str = "",
    resize: tuple[int, ...] = (),
) -> Path:
    """Writes a ``site.toml``.

    Args:
        folder: Folder of the site, created where absent; with an address it holds the keys.
        name: The site's name.
        data: Labelled examples.
        address: ``host:port`` of the server with which it is registered; "" for none.
        shared_labels: Whether label k means the same at every site, as the server told at the
            registration.
        labels: The labels in the order that all sites have agreed on, likewise.
        features: The names of a table's features in order, likewise; empty where not agreed.
        backbone: The backbone, its file in the folder; None for none.
        scale: Scaling of numbers.
        label: Column of labels; "" where it is found out.
        text: Column of texts that are the inputs; "" for none.
        resize: Width and height that images get; none keeps their own.

    Returns:
        The file.

    Raises:
        UsageError: If the file exists already.
        DataError: If there is nothing at ``data``.
        ConfigError: If the name can't be used.
    """
    if not is_name(name):
        raise ConfigError(
            "this can't be a site's name", where="--name", expected=NAME_RULE, got=ascii(name[:80])
        )
    path = _require_new(folder, data)
    folder.mkdir(parents=True, exist_ok=True)
    inside = data.resolve().is_relative_to(folder.resolve())
    values = {
        "name": name,
        "data": os.path.relpath(data, folder) if inside else str(data.resolve()),
        **asdict(PolicyConfig()),
        **asdict(LimitsConfig()),
        **{f"privacy_{key}": value for key, value in asdict(PrivacyConfig()).items()},
        "shared_labels": shared_labels,
        "labels": labels,
        "backbone": backbone.file if backbone else "",
        "network": backbone.network if backbone else "",
        "scale": scale,
        "label": label,
        "text": text,
        "resize": resize,
        "address": address,
        **(_SERVER_FILES if address else dict.fromkeys(_SERVER_FILES, "")),
    }
    draft = folder / ".site.toml.draft"
    # JSON's strings and numbers are TOML's too.
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    written["features"] = "\n".join(agreed_settings(features))
    draft.write_text(_TEMPLATE.format(**written), "utf-8")
    try:
        read_config(draft)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _require_new(folder: Path, data: Path) -> Path:
    """The path of the new ``site.toml``; raises if it exists already, or there are no data."""
    path = folder / "site.toml"
    if path.exists():
        raise UsageError(
            "the file exists already and is never overwritten",
            where=str(path),
            remedy="Edit it, or choose another folder.",
        )
    require_readable(data)
    return path
