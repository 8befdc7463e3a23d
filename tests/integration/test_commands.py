"""f2l-server and f2l-admin: the zoo's commands, the control service, the dashboard."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.federation.folder import Federation
from tests.support.commands import in_process
from tests.support.conducted import after_rounds
from tests.support.deployment import free_ports
from tests.support.small_federation import small_federation
from tests.support.waiting import PATIENCE_S

BIN = Path(sys.executable).parent


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / words[0], *words[1:]], capture_output=True, text=True, timeout=PATIENCE_S
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return after_rounds(tmp_path_factory.mktemp("federation") / "out", 2)


def test_zoo_stats_counts_what_is_there(finished):
    done = command("f2l-admin", "zoo", "stats", str(finished.root / "zoo"), "--json")
    found = json.loads(done.stdout)
    assert (found["records"], found["sites"], found["rounds"]) == (24, 6, 2)


def test_zoo_verify_is_silent_about_a_sound_zoo_and_names_a_flipped_bit(finished, tmp_path):
    zoo = tmp_path / "zoo"
    subprocess.run(["cp", "-r", finished.root / "zoo", zoo], check=True)
    assert in_process("f2l-admin", "zoo", "verify", str(zoo)).returncode == 0
    shard = sorted((zoo / "shards").iterdir())[0]
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(damaged)
    done = in_process("f2l-admin", "zoo", "verify", str(zoo))
    assert done.returncode == 1
    assert shard.name in done.stdout


def test_a_network_can_be_taken_out_of_a_zoo_and_into_another(finished, tmp_path):
    source, files = finished.root / "zoo", tmp_path / "files"
    done = in_process(
        "f2l-admin", "zoo", "export", str(source), str(files), "--site", "site-001",
        "--latest", "--context",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = files.iterdir()
    assert file.suffix == ".safetensors"
    other = Federation.create(tmp_path / "other", finished.config)
    done = in_process(
        "f2l-admin", "zoo", "import", str(other.root / "zoo"), str(file),
        "--site", "elsewhere", "--round", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = other.zoo.snapshot().records()
    assert (record.site, record.round) == ("elsewhere", 1)


def test_forget_asks_for_a_confirmation_and_then_erases(finished, tmp_path):
    zoo = tmp_path / "zoo"
    subprocess.run(["cp", "-r", finished.root / "zoo", zoo], check=True)
    refused = in_process("f2l-admin", "zoo", "forget", str(zoo), "site-002")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert in_process("f2l-admin", "zoo", "forget", str(zoo), "site-002", "--yes").returncode == 0
    found = json.loads(in_process("f2l-admin", "zoo", "stats", str(zoo), "--json").stdout)
    assert (found["sites"], found["forgotten"]) == (5, ["site-002"])


def test_a_folder_that_is_no_zoo_gets_one_sentence(tmp_path):
    done = in_process("f2l-admin", "zoo", "stats", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def service(finished: Federation) -> Iterator[dict[str, str]]:
    """Addresses of a running f2l-server on the finished federation."""
    from server.pki.certificate_store import create_authority, issue

    certificates = finished.root / "certificates"
    if not certificates.exists():
        create_authority(certificates)
        issue(certificates, "server", "server")
        issue(certificates, "admin", "admin")
        # What was made by a simulation is served as it is; only the addresses are said.
        gateway = free_ports(1)[0]
        said = ("[server]", f'listen = "127.0.0.1:{gateway}"', 'control = "127.0.0.1:0"')
        (finished.root / "federation.toml").write_text("\n".join([*said, "dashboard = 0"]))
    process = subprocess.Popen(
        [BIN / "f2l-server", "run", finished.root], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        found = dict(re.findall(r"^(control|dashboard) +(\S+)$", "".join(lines), re.M))
        assert set(found) == {"control", "dashboard"}
        yield {**found, "certificates": str(certificates)}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        process.stdout.close()


def ask(service: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return in_process(*asking(service), *words)


def asking(service: dict[str, str]) -> tuple[str, ...]:
    return (
        "f2l-admin", "--server", service["control"],
        "--certificates", service["certificates"], "--name", "admin",
    )  # fmt: skip


def test_an_admin_sees_rounds_and_sites_and_rolls_a_release_back(service, finished):
    listed = json.loads(command(*asking(service), "round", "list", "--json").stdout)
    assert [(row["number"], row["step"]) for row in listed] == [(1, "done"), (2, "done")]
    sites = json.loads(ask(service, "site", "list", "--json").stdout)
    assert len(sites) == 6
    done = ask(service, "release", "rollback")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "00001 is promoted\n"
    assert ask(service, "release", "promote", "00002").returncode == 0
    assert finished.releases.promoted().id == "00002"
    with urllib.request.urlopen(service["dashboard"], timeout=PATIENCE_S) as answer:
        assert "00002" in answer.read().decode()


def test_without_a_server_the_admin_gets_one_sentence(service, tmp_path):
    done = ask({**service, "control": "127.0.0.1:9"}, "round", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_init_lays_out_a_federation_and_refuses_to_do_it_twice(tmp_path):
    folder = tmp_path / "central"
    done = command("f2l-server", "init", str(folder), "--set", "target.classes=10")
    assert done.returncode == 0, done.stderr
    assert Federation.open(folder).config.target.classes == 10
    key = folder / "certificates/ca.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    assert in_process("f2l-server", "init", str(folder)).returncode != 0
    assert key.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("f2l-server", "init", "/proc/nowhere/x", "--address", "localhost:9"), "/proc/nowhere"),
        (("f2l-admin", "zoo", "export", "{zoo}", "/proc/nowhere/x"), "/proc/nowhere"),
    ],
)
def test_a_file_that_can_not_be_written_gets_one_sentence(finished, words, said):
    done = in_process(*(word.format(zoo=finished.root) for word in words))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_explain_shows_the_sites_shares_in_a_network(finished):
    done = in_process("f2l-admin", "explain", str(finished.root), "--site", "site-002")
    assert done.returncode == 0, done.stderr
    assert "for site-002 as if it were new" in done.stdout
    assert "share in %" in done.stdout
    done = in_process("f2l-admin", "explain", str(finished.root), "--site", "site-002", "--json")
    found = json.loads(done.stdout)
    assert found["release"] == "00002"
    assert sum(one["share"] for one in found["origin"]["shares"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--site", "site-02"), "knows no such site", 2),
        (("--site", "site-002", "--release", "00077"), "no such release", 1),
    ],
)
def test_explain_refuses_an_unknown_site_or_release_in_one_sentence(finished, words, said, code):
    done = in_process("f2l-admin", "explain", str(finished.root), *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_explain_says_that_a_round_comes_first(tmp_path):
    federation, _ = small_federation(tmp_path / "out")
    done = in_process("f2l-admin", "explain", str(federation.root), "--site", "site-001")
    assert done.returncode != 0
    assert "there is no release yet" in done.stderr
