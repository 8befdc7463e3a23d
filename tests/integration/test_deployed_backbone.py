"""A federation of real daemons that adapts a backbone: from kits with its file to programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from clients.site.model_store import load_model
from clients.site.sent_log import SentLog
from server.rounds.state_files import load_states
from tests.support.central import BIN, Central, prepare, running
from tests.support.commands import in_process
from tests.support.served import OF_HEADS, SETTINGS
from tests.support.small_federation import SETTINGS as SMALL
from tests.support.waiting import PATIENCE_S

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

TAKES_PART, STRANGER = ("north", "south"), "stranger"
NETWORK = "networks_of_mine:network"
FILE_BYTES = 2**20
MODULE = f'''
import torch
from torch import nn

class Network(nn.Module):
    """A network of three channels, whose file is a megabyte: a message has a few kilobytes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.register_buffer("large", torch.arange({FILE_BYTES // 4}).float())

    def forward(self, x):
        return self.second(self.first(x).relu()).relu()

def network():
    torch.manual_seed(1)
    return Network()
'''


@dataclass(frozen=True, kw_only=True)
class Played:
    """A federation whose server does not have the network's code.

    Args:
        folder: All files.
        central: Its server.
        digests: Of the federation's backbone, and of another one.
        watched: What `f2l-admin round start --watch` has printed.
    """

    folder: Path
    central: Central
    digests: tuple[str, str]
    watched: str

    def site(self, name: str) -> Path:
        return self.folder / name / "site.toml"


def pictures(folder: Path, first: int) -> Path:
    """A folder of small pictures in colour: three digits, each in another colour."""
    images, labels = load_digits(return_X_y=True)
    for digit in range(first, first + 3):
        tint = np.eye(3)[digit % 3] + 0.2
        for number, row in enumerate(np.flatnonzero(labels == digit)[:12]):
            grey = images[row].reshape(8, 8, 1) / 16
            path = folder / f"digit {digit}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((grey * tint / 1.2 * 255).astype(np.uint8)).save(path)
    return folder


def done(*words: str) -> str:
    """What a command prints that succeeds."""
    found = in_process(*words)
    assert found.returncode == 0, found.stderr
    return found.stdout


def prepared(file: Path, *more: str) -> dict[str, str]:
    """Makes a backbone's file; returns the settings that are printed."""
    printed = done("f2l-admin", "target", "prepare", NETWORK, str(file), "--input", "3,8,8", *more)
    lines = [line.split(" = ") for line in printed.splitlines() if " = " in line]
    return {key: value.strip('"') for key, value in lines}


def joined(folder: Path, name: str, more: tuple[str, ...], *own: str) -> Path:
    """The ``site.toml`` of a site that has registered with its kit."""
    kit = folder / f"{name}.kit"
    told = done("f2l-admin", "site", "add", name, "--out", str(kit), *more)
    data = pictures(folder / f"{name}-pictures", len(name) - 5)
    done(
        "f2l-site", "init", str(kit), "--data", str(data), "--into", str(folder / name),
        "--fingerprint", told.split("--fingerprint ")[1].split()[0], *own,
    )  # fmt: skip
    return folder / name / "site.toml"


@contextmanager
def daemons() -> Iterator[Callable[[Path, Path], None]]:
    """Starts the daemons of sites, which alone have the network's code, and ends them together."""
    started: list[subprocess.Popen[bytes]] = []

    def start(site: Path, code: Path) -> None:
        with site.with_name("said").open("w") as log:
            started.append(
                subprocess.Popen(
                    [BIN / "f2l-site", "run", str(site)],
                    env={**os.environ, "PYTHONPATH": str(code)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    try:
        yield start
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The federation after a round, its daemons running."""
    folder = tmp_path_factory.mktemp("deployed")
    code = folder / "code"
    code.mkdir()
    (code / "networks_of_mine.py").write_text(MODULE)
    root, ours, theirs = folder / "central", folder / "ours.st", folder / "theirs.st"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.syspath_prepend(code)
        told, other = prepared(ours), prepared(theirs, "--mean", "0.5,0.5,0.5")
        assert ours.stat().st_size > FILE_BYTES
        settings = (
            *SMALL, *SETTINGS, *OF_HEADS, "target.name=adapter", "target.input_shape=[3,8,8]",
            "target.classes=3", f"target.backbone={told['backbone']}",
            f"target.features={told['features']}",
        )  # fmt: skip
        ports = prepare(root, *(word for one in settings for word in ("--set", one)))
        central = stack.enter_context(running(root, *ports))
        start = stack.enter_context(daemons())
        for key, value in {
            "F2L_SERVER": f"localhost:{central.control}",
            "F2L_CERTIFICATES": str(central.certificates),
            "F2L_NAME": "admin",
        }.items():
            patch.setenv(key, value)
        refused = in_process("f2l-admin", "site", "add", "north", "--backbone", str(theirs))
        assert refused.returncode == 1
        assert told["backbone"] in refused.stderr
        assert other["backbone"] in refused.stderr
        for name in TAKES_PART:
            start(joined(folder, name, ("--backbone", str(ours)), "--network", NETWORK), code)
        stranger = joined(folder, STRANGER, ())
        own = f'\nfile = "../{theirs.name}"\nnetwork = "{NETWORK}"'
        text = stranger.read_text().replace('\nfile = ""\nnetwork = ""', own)
        stranger.write_text(text)
        start(stranger, code)
        watched = in_process("f2l-admin", "round", "start", "--watch")
        assert watched.returncode == 0, (watched.stderr, central.logs())
        yield Played(
            folder=folder,
            central=central,
            digests=(told["backbone"], other["backbone"]),
            watched=watched.stdout + watched.stderr,
        )


def test_the_sites_with_the_kit_s_file_finish_a_round_and_only_heads_travel(played):
    (state,) = load_states(played.central.root / "rounds")
    assert (state.step, set(state.accepted)) == ("done", set(TAKES_PART))
    assert 0 < state.bytes_up + state.bytes_down < FILE_BYTES / 50
    for name in TAKES_PART:
        file = played.folder / name / "backbone.safetensors"
        assert file.read_bytes() == (played.folder / "ours.st").read_bytes()
        assert file.stat().st_mode & 0o777 == 0o600
        assert (played.folder / f"{name}.kit").stat().st_mode & 0o777 == 0o600
        assert in_process("f2l-site", "check", str(played.site(name))).returncode == 0


def test_a_site_with_another_file_sends_nothing_and_both_sides_see_why(played):
    stranger = played.site(STRANGER)
    log = (stranger.parent / "state/daemon.log").read_text()
    checked = in_process("f2l-site", "check", str(stranger))
    assert checked.returncode == 2
    for digest in played.digests:
        assert digest in log
        assert digest in checked.stdout + checked.stderr
    sent = SentLog.in_folder(stranger.parent / "state").entries()
    assert [(entry["kind"], entry["tensors"]) for entry in sent] == [("refusal", {})]
    why = "another backbone than the federation adapts, or none (other-backbone)"
    assert why in played.watched
    listed = json.loads(done("f2l-admin", "site", "list", "--json"))
    rejections = {site["name"]: site["last_rejection"] for site in listed}
    assert why in rejections[STRANGER]
    assert [rejections[name] for name in TAKES_PART] == [""] * len(TAKES_PART)


def test_a_site_generates_predicts_and_takes_its_program_away(played, tmp_path):
    site, data = str(played.site("north")), played.folder / "north-pictures"
    shown = json.loads(done("f2l-site", "generate", site, "--json"))["model"]
    assert (shown["release"], shown["round"]) == ("00001", 0)
    assert shown["backbone"] == played.digests[0]
    assert json.loads(done("f2l-site", "evaluate", site, "--data", str(data), "--json"))
    out = tmp_path / "out.csv"
    done("f2l-site", "predict", site, "--input", str(data / "digit 0"), "--output", str(out))
    assert out.read_text().count("digit 0") > 6
    done("f2l-site", "model", "export", site, str(tmp_path / "taken"))
    program = torch.export.load(tmp_path / "taken/model.pt2").module()
    picture = np.asarray(Image.open(data / "digit 0/0.png")).transpose(2, 0, 1) / np.float32(255)
    model = load_model(played.site("north").parent / "state")
    assert program(torch.from_numpy(picture)[None]).shape == (1, model.facts.classes)
    assert (tmp_path / "taken/model.safetensors").stat().st_size < FILE_BYTES / 50
