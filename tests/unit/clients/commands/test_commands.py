from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from clients.cli import site as entry_point
from clients.client_app import app
from clients.daemon.status_page import page_html
from clients.onboarding.site_template import create_site
from clients.site.model_store import load_model
from clients.site.sent_log import REFUSAL, SentLog, utc_now
from clients.site.site import open_site
from clients.site.site_folder import SiteFolder
from f2l_fed.errors import ConfigError, DataError, UsageError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import TASK_ACTION, Task
from f2l_fed.wire.packing import pack_task
from tests.support.loopback import LoopbackGrid
from tests.support.sites import digits_site, frame
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[4]


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


F2LSite = Callable[..., Ended]


@pytest.fixture
def f2l_site(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> F2LSite:
    """The entry point in this process, which saves the start of another."""

    def call(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["f2l-site", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            entry_point()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return call


def work(site: Path) -> None:
    """One task at the site."""
    task = Task(
        frame=frame(),
        anchor=None,
        round=1,
        release="",
        recipe=Recipe(steps=3),
        candidates=(),
    )
    grid = LoopbackGrid(app, {7: {"site": str(site)}})
    assert list(grid.send_and_receive([Message(pack_task(task), 7, TASK_ACTION)]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run",), "[server] address: the server's address is missing: expected host:port."),
        (("model", "export", "out"), "this site has no network yet."),
        (("init",), "new: the kit does not exist. Check the path."),
        (("init", "--name", "a", "--data", "absent"), "absent: the data do not exist."),
    ],
)
def test_an_impossible_command_ends_with_2_and_one_sentence(
    tmp_path, f2l_site, arguments, sentence
):
    site = digits_site(tmp_path)
    subject = tmp_path / "new" if arguments[0] == "init" else site
    depth = 2 if arguments[0] == "model" else 1
    done = f2l_site(*arguments[:depth], subject, *arguments[depth:])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_in_a_process_of_its_own_ends_with_2_and_one_sentence(tmp_path):
    command = [sys.executable, "-m", "clients.cli", "status", str(tmp_path / "absent.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "the site's configuration can't be read" in done.stderr


def test_check_ends_with_2_and_every_problem(tmp_path, f2l_site):
    site = digits_site(tmp_path, more='[policy]\ntargets = "nope"\nminimum_examples = 99\n')
    done = f2l_site("check", site)
    assert done.returncode == 2
    assert done.stdout.count("problem: ") == 2
    assert done.stderr == ""
    report = json.loads(f2l_site("check", site, "--json").stdout)
    assert len(report["problems"]) == 2
    assert report["train"] == 30


def test_status_and_sent_show_what_has_happened(tmp_path, f2l_site):
    site = digits_site(tmp_path)
    work(site)
    shown = json.loads(f2l_site("sent", site, "--json").stdout)
    assert shown["total"]["messages"] == len(shown["sent"]) == 1
    assert shown["total"]["bytes"] == shown["sent"][0]["bytes"]
    (change,) = shown["sent"][0]["changes"]
    table = f2l_site("sent", site).stdout
    assert "1 message, " in table
    assert f" {change:.4g} " in table
    status = json.loads(f2l_site("status", site, "--json").stdout)
    assert status["daemon"] is None
    assert status["latest"] == shown["sent"][0]
    assert status["model"]["round"] == 1


LOADED = """
import sys
{code}
print(sorted({{"torch", "flwr"}} & sys.modules.keys()), file=sys.stderr)
"""


def loaded(code: str, *arguments: str | Path) -> str:
    """Which of the large libraries some code loads in a process of its own, with arguments."""
    command = [sys.executable, "-c", LOADED.format(code=code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stderr.strip().splitlines()[-1]


def test_commands_that_only_tell_load_no_large_library(tmp_path):
    site = digits_site(tmp_path, more='[server]\naddress = "127.0.0.1:9"\ninsecure = true\n')
    work(site)
    run = "from clients.cli import site\ntry: site()\nexcept SystemExit: pass"
    for command in ("status", "sent", "doctor"):
        assert loaded(run, command, site) == "[]", command


@pytest.mark.parametrize("module", ["supervisor", "superexec_main", "supernode_main"])
def test_no_process_of_a_daemon_but_that_of_the_tasks_loads_torch(module):
    assert "torch" not in loaded(f"import clients.daemon.{module}")


def test_the_page_shows_the_norm_of_what_has_left(tmp_path):
    site = digits_site(tmp_path)
    work(site)
    (entry,) = SentLog.in_folder(tmp_path / "state").entries()
    assert f"<td class=n>{entry['changes'][0]:.4g}</td>" in page_html(site)


def test_entries_of_an_older_version_are_shown_without_norms(tmp_path, f2l_site):
    site = digits_site(tmp_path)
    work(site)
    log = tmp_path / "state/sent.jsonl"
    entry = json.loads(log.read_text())
    log.write_text(json.dumps({k: v for k, v in entry.items() if k not in ("norms", "changes")}))
    done = f2l_site("sent", site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 message, " in done.stdout


def test_the_doctor_shows_one_page_without_data_and_secrets(tmp_path, f2l_site, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://ann:secret-word@127.0.0.1:9")
    site = digits_site(tmp_path, more='[server]\naddress = "localhost:9"\ninsecure = true\n')
    work(site)
    log = tmp_path / "state/daemon.log"
    log.write_text("a line\nERROR: Proxy-Authorization: Basic c2VjcmV0LXdvcmQ=\n")
    done = f2l_site("doctor", site)
    assert done.returncode == 1
    (problem,) = done.stdout.split("problems\n  ")[1].split("\n\n")[0].splitlines()
    assert problem == "localhost:9: the server can't be reached: Connection refused."
    for part in (
        "name       north",
        "last sent  update",
        "state  has never run",
        "GiB free in",
        "flwr",
    ):
        assert part in done.stdout
    assert "ERROR: Proxy-Authorization: …" in done.stdout
    assert "secret-word" not in done.stdout


def test_the_doctor_says_refusals_in_words_and_which_way_it_takes(tmp_path, f2l_site, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    site = digits_site(tmp_path, more='[server]\naddress = "127.0.0.1:9"\ninsecure = true\n')
    fields = ConfigRecord({"code": "too-few-examples"})
    (tmp_path / "state").mkdir(exist_ok=True)
    sent = SentLog.in_folder(tmp_path / "state")
    sent.record(REFUSAL, 1, RecordDict({"meta": fields}), utc_now())
    done = f2l_site("doctor", site)
    assert "the site has too few examples (too-few-examples), " in done.stdout
    assert "to the server  direct\n" in done.stdout
    assert "not excepted" not in done.stdout


def test_a_folder_in_place_of_the_site_file_is_answered_with_the_file(tmp_path, f2l_site):
    digits_site(tmp_path)
    done = f2l_site("check", tmp_path)
    assert done.returncode == 2
    assert f"this is a folder: expected the site's configuration. Give {tmp_path}" in done.stdout


def test_the_doctor_looks_at_the_machine_where_the_site_file_is_broken(tmp_path, f2l_site):
    (tmp_path / "site.toml").write_text("name = ")
    done = f2l_site("doctor", tmp_path / "site.toml")
    assert done.returncode == 1
    assert "the site's configuration can't be read" in done.stdout
    assert "GiB free in" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--input", "new.csv", "--output", "nodir/out.csv"),
        ("evaluate", "--data", "new.csv", "--picture", "nodir/calibration.svg"),
    ],
)
def test_an_output_in_a_folder_that_is_absent_is_refused_first(tmp_path, f2l_site, words):
    done = f2l_site(*words, tmp_path / "site.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nodir: there is no such folder. Make it first.\n"


@pytest.mark.parametrize("name", ["North", "a.b", "a" * 64, "ä"])
def test_a_name_that_no_site_may_have_is_refused_before_anything_is_written(
    tmp_path, f2l_site, name
):
    done = f2l_site("init", tmp_path / "new", "--name", name, "--data", digits_site(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--name: this can't be a site's name: expected 1 to 63 of a-z" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_site_without_a_start_is_told_to_take_part_first(tmp_path, f2l_site):
    site = digits_site(tmp_path)
    done = f2l_site("generate", site)
    assert (done.returncode, done.stdout) == (1, "")
    remedy = f"Take part in a round first: f2l-site run {site}"
    what = "no start has arrived yet, and the site has no server that knows it"
    assert done.stderr == f"error: {site}: {what}. {remedy}\n"
    assert f2l_site("generate", site, "--steps", "-1").returncode == 2


def test_a_network_is_made_again_from_the_start_of_the_latest_task_and_exported(tmp_path, f2l_site):
    site = digits_site(tmp_path)
    work(site)
    for name in ("model.safetensors", "model.json"):
        (tmp_path / "state" / name).unlink()
    shown = json.loads(f2l_site("generate", site, "--steps", "60", "--json").stdout)
    facts = shown["model"]
    assert (facts["steps"], facts["round"], facts["chosen"]) == (60, 1, "anchor")
    assert shown["loss"] < shown["loss_before"]
    assert facts["accuracy_before"] < 0.5 < 0.8 < facts["accuracy"]
    kept = load_model(tmp_path / "state")
    assert kept is not None
    opened = open_site(site)
    target = build_target("mlp", frame().input_shape, 3)
    measured = loss_and_accuracy(target, kept.weights, opened.validation.x, opened.validation.y)
    assert measured == (shown["loss"], facts["accuracy"])
    assert f2l_site("model", "export", site, tmp_path / "out").returncode == 0
    assert json.loads((tmp_path / "out/model.json").read_text()) == facts
    said = f2l_site("generate", site).stdout
    assert "mlp from anchor of round 1\n3 steps on 30 examples, measured on 6\n" in said
    assert len(json.loads(f2l_site("sent", site, "--json").stdout)["sent"]) == 1


def test_a_new_site_passes_its_own_check(tmp_path, f2l_site):
    digits_site(tmp_path / "data")
    done = f2l_site(
        "init", tmp_path / "new", "--name", "line-7", "--data", tmp_path / "data/train.npz"
    )
    assert done.returncode == 0, done.stderr
    done = f2l_site("check", tmp_path / "new/site.toml", "--target", "mlp")
    assert done.returncode == 0, done.stdout
    assert "Nothing is wrong." in done.stdout


def test_a_new_site_takes_the_column_of_labels_and_the_size_of_images(tmp_path, f2l_site):
    rows = "".join(f"{n},{n % 7},{'xy'[n % 2]}\n" for n in range(40))
    (tmp_path / "t.csv").write_text(f"a,b,Ergebnis\n{rows}")
    new = ("init", tmp_path / "new", "--name", "line-7", "--data", tmp_path / "t.csv")
    wrong = f2l_site(*new, "--resize", "wide")
    assert (wrong.returncode, (tmp_path / "new").exists()) == (2, False)
    assert "--resize: not a size of images" in wrong.stderr
    done = f2l_site(*new, "--label", "Ergebnis", "--resize", "64x48")
    assert done.returncode == 0, done.stderr
    config = SiteFolder.read(tmp_path / "new/site.toml").config
    assert (config.data.label, config.data.resize) == ("Ergebnis", (64, 48))
    assert "Nothing is wrong." in f2l_site("check", tmp_path / "new/site.toml").stdout
    texts = create_site(tmp_path / "b", "b", tmp_path / "t.csv", label="Ergebnis", text="a")
    assert (SiteFolder.read(texts).config.data.text, config.data.text) == ("a", "")


def test_a_site_file_is_never_overwritten_nor_written_in_part(tmp_path):
    site = digits_site(tmp_path / "a")
    before = site.read_text()
    with pytest.raises(UsageError, match="never overwritten"):
        create_site(tmp_path / "a", "a", tmp_path / "a/train.npz")
    assert site.read_text() == before
    with pytest.raises(ConfigError, match="can't be a site's name"):
        create_site(tmp_path / "b", "No Name", tmp_path / "a/train.npz")
    with pytest.raises(DataError, match="the data do not exist"):
        create_site(tmp_path / "c", "c", tmp_path / "absent")
    assert list(tmp_path.rglob("*.draft")) == []
    assert not (tmp_path / "b").exists()
