"""Canaries: a real round with marked sites; no mark leaves them, and no secret is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)

from server.federation.folder import Federation
from tests.attacks.peers.leaking_site import leak
from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder
from tests.support.marked_federation import Played, mark, played_round
from tests.support.marks import Marks

pytestmark = [pytest.mark.deployment, pytest.mark.ray, pytest.mark.slow]

OPEN_ALL = """
import fcntl, os, sys
for root in sys.argv[1:]:
    for folder, _, names in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            print(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                print(path, "is held")
            except OSError:
                pass
"""
"""Whoever can open a lock file can also hold it."""

_SECRET_FILE = re.compile(r"secret|token|\.key$|\.kit$")
_SECRET = re.compile(r"[A-Za-z0-9+/_=-]{20,}")


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    # What another account may do there is up to the federation alone.
    with public_folder() as root, played_round(root) as played:
        yield played


def test_no_mark_is_on_the_wire(played):
    for site in played.sites:
        sent = played.wire.sent(site)
        assert sum(map(len, sent)) > 10_000 or site == "south"
        assert sum(map(len, sent)) > 1_000
    everything = b"\n".join(
        [*played.wire.sent(), *(bytes(p.received) for p in played.wire.passages)]
    )
    # No mark can be torn by a transfer in pieces.
    assert b"transfer-encoding" not in b"\n".join(played.wire.sent()).lower()
    assert played.marks.found(everything) == set()


def test_what_is_meant_to_leave_is_seen_on_the_wire_and_in_the_zoo(played):
    """The check of the two tests beside it: the same search in the same places finds something."""
    zoo = Federation.open(played.central).zoo.snapshot()
    assert {record.site for record in zoo.records()} == {"north", "west"}
    for site in ("north", "west"):
        update = Marks({"site": site}, {"update": zoo.weights(zoo.records(site=site))})
        assert update.found(b"\n".join(played.wire.sent(site))) == {"site", "update"}
        assert {"update"} <= set().union(*update.found_below(played.central / "zoo").values())


def test_a_site_that_leaks_is_seen_on_the_wire(played):
    text, row = mark("leak"), np.random.default_rng().random((1, 64), np.float32)
    north = played.sites["north"]
    leak(played.wire.port, north.folder, text, row)
    leaked = Marks({"text": text}, {"row": row})
    assert leaked.found(b"\n".join(played.wire.sent("north"))) == {"text", "row"}


def test_no_mark_is_in_the_centres_folder_log_events_or_pages(played):
    marks = played.marks
    assert marks.found_below(played.central) == {}
    told = {**played.observed.ray_logs, **played.observed.pages}
    told = {name: text for name, text in told.items() if name.strip("/") not in played.sites}
    assert len(told) > 6
    assert {name: found for name, text in told.items() if (found := marks.found(text))} == {}


def test_no_secret_is_told(played):
    """In no command line, log, event, page or other file, and no key on the wire."""
    files = [path for path in played.root.rglob("*") if path.is_file()]
    keeping = [path for path in files if _SECRET_FILE.search(path.name)]
    assert {"secret", "ca.key", "tls.key", "flower.key"} <= {path.name for path in keeping}
    told = {f"process {words!r}": words for words in played.observed.command_lines}
    told |= {**played.observed.ray_logs, **played.observed.pages}
    told |= {str(path): path.read_bytes() for path in files if path not in keeping}
    assert any("flwr-serverapp" in words for words in told)
    assert any("clients.daemon.clientapp_main" in words for words in told)
    assert any("raylet" in words for words in told)
    assert {path: f"{path.stat().st_mode & 0o777:o}" for path in keeping if is_open(path)} == {}
    secrets = {str(path): secrets_in(path) for path in keeping}
    assert all(secrets.values())
    marks = Marks(
        {f"{path} {n}": s for path, all in secrets.items() for n, s in enumerate(all)}, {}
    )
    assert {name: found for name, text in told.items() if (found := marks.found(text))} == {}
    # A kit's token is what it is for; no key ever leaves.
    sent = marks.found(b"\n".join(played.wire.sent()))
    assert {path for path in sent if ".kit" not in path} == set()
    assert len({path for path in sent if ".kit" in path}) == len(played.sites)


def is_open(path: Path) -> bool:
    """Whether others may read a secret; a kit's mode is the administrator's to choose."""
    return path.stat().st_mode & 0o077 != 0 and path.suffix != ".kit"


def secrets_in(path: Path) -> list[str | bytes]:
    """What nobody may guess of a file: a key's number in parts, since PEM breaks its lines."""
    data = path.read_bytes()
    if path.suffix == ".kit":
        return [json.loads(data)["token"]]
    if path.suffix == ".key":
        read = load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key
        key = read(data, None)
        assert isinstance(key, EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)
        third = len(number) // 3
        return [number[begin : begin + 4 * third // 3] for begin in range(0, 3 * third, third)]
    return _SECRET.findall(data.decode())


@needs_root
def test_another_account_opens_no_file_and_holds_no_lock(played):
    """In the folders of federation and sites while they run; the data are the site's own care."""
    roots = [played.central, *(site.folder for site in played.sites.values())]
    assert as_nobody(OPEN_ALL, str(played.root)).stdout, "the folders around them are open"
    assert as_nobody(OPEN_ALL, *map(str, roots)).stdout == ""
