"""The Flower ClientApp: a thin adapter between Flower's messages and the site's answers.

Whatever goes wrong here, the server hears a code alone: exception texts stay at the site.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.onboarding.scale_requests import with_scales_of_server
from clients.site import limits
from clients.site.sent_log import REFUSAL, utc_now
from clients.site.site import open_site
from clients.site.site_folder import SiteFolder
from clients.training.outgoing import OutgoingMessage, probe_message, update_message
from f2l_fed.core.private_files import private_folder
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal
from f2l_fed.wire.messages import Refusal
from f2l_fed.wire.packing import pack_refusal
from f2l_fed.wire.refusals import FAILED, code_of, told

SITES_ROOT = "F2L_SITES_ROOT"
"""Environment variable: folder of the simulated sites' folders, set by the simulation."""

APP = "F2L_APP"
"""Environment variable: SHA-256 of the Flower app that the server sent, set by the runner."""

_LOG = logging.getLogger("f2l_fed.site")

app = ClientApp()


@app.query("probe")
def probe(message: Message, context: Context) -> Message:
    """Answers a server that does not know this site's context yet."""

    return _answer(message, context, probe_message)


@app.train("task")
def task(message: Message, context: Context) -> Message:
    """Fine-tunes a generated network, keeps it and returns the updated parameters."""

    return _answer(message, context, update_message)


def _answer(message: Message, context: Context, answer: Callable[..., OutgoingMessage]) -> Message:
    folder = None
    try:
        folder = with_scales_of_server(SiteFolder.read(site_path(context)), now=utc_now())
        site = open_site(folder.file)
        with limits.within(site.config.limits.task_seconds):
            outgoing = answer(site, message.content, app=os.environ.get(APP, ""))
        outgoing.record(site)
        content = outgoing.content
    except PolicyRefusal as refusal:
        _LOG.warning("refused: %s", told(refusal.what))
        content = _refusal(folder, code_of(refusal))
    except F2LError as error:
        _LOG.error("%s", error)
        content = _refusal(folder, code_of(error))
    except Exception:
        _LOG.exception("the task failed")
        content = _refusal(folder, FAILED)
    return Message(content=content, reply_to=message)


def _refusal(site: SiteFolder | None, code: str) -> RecordDict:
    """A refusal with the site's name and a code, recorded where that is possible.

    A site whose examples can't be read has a name and a record all the same.
    """
    name = site.config.name if site else ""
    content = pack_refusal(Refusal(site=name, code=code))
    try:
        if site:
            private_folder(site.state)
            site.sent.record(REFUSAL, 0, content, utc_now())
    except OSError:
        # With a full disk no answer leaves, but the server should hear that none will come.
        _LOG.exception("the refusal could not be recorded")
    return content


def site_path(context: Context) -> Path:
    """The ``site.toml`` of this node.

    In a deployment the operator names it in the SuperNode's node configuration; in a simulation
    it follows from the partition, below a folder that the simulation names in the environment.
    """
    if path := context.node_config.get("site"):
        return Path(str(path))
    root, partition = os.environ.get(SITES_ROOT), context.node_config.get("partition-id")
    if root and partition is not None:
        return Path(root) / f"site-{int(partition):03d}" / "site.toml"
    raise ConfigError(
        "this node has no site",
        expected='a node configuration with site="/path/of/site.toml"',
    )
