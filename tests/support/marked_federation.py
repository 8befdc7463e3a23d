"""A round of a real federation whose sites are full of marks, with every byte and command noted.

Three sites on loopback: ``north`` has an array file, ``west`` a folder of images, and ``south`` a
table that can't be read, so that it answers with an error. All are registered and run with a host
name, user name, home, working directory and environment that are marked, as are their data, files,
labels and comments. Between them and the gateway lies a `tapped` wire.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from f2l_fed.wire.enrolment import is_name
from server.control import client as control_client
from server.rounds import state_files
from tests.attacks.peers.tapped_wire import TappedWire, tapped
from tests.support.central import BIN, Central, prepare, running
from tests.support.deployment import free_ports
from tests.support.marks import Marks
from tests.support.small_federation import ANY_RELEASE, FEW
from tests.support.waiting import PATIENCE_S, holds

SITES = ("north", "west", "south")
QUICK = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5", "OMP_NUM_THREADS": "1"}
SETTINGS = (
    *FEW,
    *ANY_RELEASE,
    *("probe.episodes=2", "flow.width=32", "codec.common=4", "codec.rows=2"),
    *("candidates.samples=2", "candidates.training_samples=1"),
    # Its logs are searched, too.
    "ray.engine=ray",
)
REGISTER = """
import sys
from pathlib import Path
from clients.onboarding.kit import read_kit
from clients.onboarding.site_template import register_site
from clients.site.sent_log import utc_now
kit, folder, data = map(Path, sys.argv[1:])
register_site(read_kit(kit, now=utc_now()), kit, folder, data)
"""
_PER_CLASS = 20


def mark(what: str) -> str:
    """A text that is nowhere else."""
    return f"{what}-canary-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedSite:
    """A site with its marks.

    Args:
        name: Its name, which may be known.
        home: Folder of all its files, with the site's folder of its name.
        data: Its data.
        labels: Names of the classes.
        texts: What each marked text is to the text.
        rows: The same for rows of float32 values.
    """

    name: str
    home: Path
    data: Path
    labels: Sequence[str]
    texts: Mapping[str, str]
    rows: Mapping[str, np.ndarray]

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def file(self) -> Path:
        return self.folder / "site.toml"

    def started(self, *words: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """A command in the site's surroundings; as root also on a host of its own name."""
        environment = {
            **os.environ,
            **QUICK,
            **{"USER": self.texts["user"], "LOGNAME": self.texts["user"], "HOME": str(self.home)},
            **{"HOSTNAME": self.texts["host"], "CANARY": self.texts["environment"]},
        }
        command = list(map(str, words))
        if os.getuid() == 0 and shutil.which("unshare") and shutil.which("hostname"):
            named = 'hostname "$0" && exec "$@"'
            command = ["unshare", "--uts", "sh", "-c", named, self.texts["host"], *command]
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def marked_site(
    root: Path, name: str, labels: Sequence[str], rng: np.random.Generator
) -> MarkedSite:
    """A site that has data and is not registered."""
    texts = {what: mark(what) for what in ("user", "host", "environment", "comment", "file")}
    (home := root / mark("home")).mkdir()
    texts["folder"] = home.name
    y = np.repeat(np.arange(3), _PER_CLASS)
    # Every value is random to its last digit, and a class is a brighter row.
    x = 0.6 * rng.random((len(y), 8, 8))
    x[np.arange(len(y)), 2 * y] += 0.35
    if name == "north":
        data = home / f"{texts['file']}.npz"
        np.savez(data, x=x.astype(np.float32), y=np.array(labels)[y])
    elif name == "west":
        x = np.round(255 * x) / 255
        data = home / texts["file"]
        for row, label in enumerate(y):
            (data / labels[label]).mkdir(parents=True, exist_ok=True)
            path = data / labels[label] / f"{texts['file']}-{row}.png"
            Image.fromarray(np.round(255 * x[row]).astype(np.uint8)).save(path)
    else:
        texts["cell"] = mark("cell")
        data = home / f"{texts['file']}.csv"
        data.write_text(f"{mark('column')},label\n1,{labels[0]}\n{texts['cell']},{labels[1]}\n")
    texts |= {f"label {number}": label for number, label in enumerate(labels)}
    rows = {"inputs": x.reshape(len(y), -1).astype(np.float32)}
    return MarkedSite(name=name, home=home, data=data, labels=labels, texts=texts, rows=rows)


@dataclass(slots=True)
class Observed:
    """Command lines, logs of Ray and pages, as long as they can be seen.

    Args:
        command_lines: Of all processes of this machine.
        ray_folders: The sessions that these name.
    """

    command_lines: set[bytes] = field(default_factory=set)
    ray_folders: set[Path] = field(default_factory=set)
    ray_logs: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)

    def look(self, root: Path) -> None:
        """Looks at every process once; ``root`` is in the surroundings of those that count."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if words in self.command_lines:
                    continue
                self.command_lines.add(words)
                if b"ray" in words and str(root).encode() in (entry / "environ").read_bytes():
                    found = re.findall(rb"(/[^\0=]*?/session_\d[^/\0]*)", words)
                    self.ray_folders |= {Path(os.fsdecode(path)) for path in found}
        for folder in self.ray_folders:
            # A session that ends meanwhile takes its folder away.
            with suppress(OSError):
                for path in folder.glob("logs/**/*"):
                    with suppress(OSError):
                        self.ray_logs[str(path)] = path.read_bytes()


@contextmanager
def observing(root: Path) -> Iterator[Observed]:
    """Looks again and again until the block ends."""
    observed, over = Observed(), threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            observed.look(root)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield observed
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A round that is over, with everything but its wire ended.

    Args:
        root: Folder of all.
        central: The service, ended.
        wire: All that passed.
        sites: The sites by name.
        observed: Command lines and pages.
        kits: Folder of the used kits.
    """

    root: Path
    central: Path
    wire: TappedWire
    sites: Mapping[str, MarkedSite]
    observed: Observed
    kits: Path

    @property
    def marks(self) -> Marks:
        """All marks of all sites."""
        texts, rows = {}, {}
        for site in self.sites.values():
            texts |= {f"{site.name}: {what}": text for what, text in site.texts.items()}
            rows |= {f"{site.name}: {what}": values for what, values in site.rows.items()}
        return Marks(texts, rows)


@contextmanager
def played_round(root: Path) -> Iterator[Played]:
    """One round with three sites, of which two answer; the server still runs in the block."""
    rng = np.random.default_rng()
    labels = [mark("label") for _ in range(3)]
    sites = {name: marked_site(root, name, labels, rng) for name in SITES}
    (kits := root / "kits").mkdir()
    (port,), folder = free_ports(1), root / "federation"
    changes = [word for setting in SETTINGS for word in ("--set", setting)]
    gateway, control = prepare(folder, "--address", f"localhost:{port}", *changes)
    folders = {name: site.folder for name, site in sites.items()}
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in QUICK.items():
            patch.setenv(name, value)
        observed = stack.enter_context(observing(root))
        central = stack.enter_context(running(folder, gateway, control))
        wire = stack.enter_context(tapped(port, gateway, central.certificates, folders))
        pages = dict(zip(SITES, free_ports(len(SITES)), strict=True))
        for site in sites.values():
            _register(central, kits, site, pages[site.name])
        daemons = [
            site.started(BIN / "f2l-site", "run", site.file, log=root / f"{site.name}.log")
            for site in sites.values()
        ]
        try:
            _conduct(central, daemons, root)
            _visit(central, pages, observed)
        finally:
            for daemon in daemons:
                daemon.send_signal(signal.SIGTERM)
            for daemon in daemons:
                daemon.wait(PATIENCE_S)
        yield Played(
            root=root, central=folder, wire=wire, sites=sites, observed=observed, kits=kits
        )


def _register(central: Central, kits: Path, site: MarkedSite, page: int) -> None:
    assert is_name(site.name)
    kit = kits / f"{site.name}.kit"
    kit.write_bytes(central.ask(lambda to: control_client.add_site(to, site.name)))
    log = kits / f"{site.name}.log"
    process = site.started(sys.executable, "-c", REGISTER, kit, site.folder, site.data, log=log)
    assert process.wait(PATIENCE_S) == 0, log.read_text()
    text = site.file.read_text()
    text = text.replace("labels = []", f"labels = {list(site.labels)}")
    text = text.replace("page = 0", f"page = {page}")
    site.file.write_text(f"# {site.texts['comment']}\n{text}")


def _conduct(central: Central, daemons: list[subprocess.Popen[bytes]], root: Path) -> None:
    def said() -> str:
        texts = [path.read_text() for path in root.glob("*.log")]
        return "\n".join((*texts, central.logs()))

    def over() -> bool:
        assert all(daemon.poll() is None for daemon in daemons), said()
        known = state_files.load_states(central.root / "rounds")
        return bool(known) and known[-1].step in ("done", "failed")

    done = central.admin("round", "start")
    assert done.returncode == 0, done.stderr
    assert holds(over, timeout_s=3 * PATIENCE_S, every_s=0.5), said()
    (state,) = state_files.load_states(central.root / "rounds")
    assert (state.step, state.accepted) == ("done", ("north", "west")), (state, said())


def _visit(central: Central, pages: Mapping[str, int], observed: Observed) -> None:
    """Notes the pages of sites and server, and what the administrator is told."""
    settings = (central.root / "federation.toml").read_text()
    (dashboard,) = re.findall(r"^dashboard = (\d+)", settings, re.MULTILINE)
    paths = dict.fromkeys(pages, ("",)) | {"dashboard": ("", "metrics", "health")}
    for name, port in {**pages, "dashboard": int(dashboard)}.items():
        for path in paths[name]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                observed.pages[f"{name}/{path}"] = answer.read() + str(answer.headers).encode()
    for words in (("site", "list"), ("round", "list"), ("release", "list"), ("health",)):
        told = central.admin(*words)
        observed.pages[" ".join(words)] = (told.stdout + told.stderr).encode()
