from __future__ import annotations

import logging
import sys
from pathlib import Path

from clients.daemon import supernode
from clients.daemon.supervisor import Backoff
from clients.site.config import DataConfig, ServerConfig, SiteConfig
from clients.site.site_folder import SiteFolder

QUIET = logging.Logger("quiet", logging.CRITICAL)


def site(folder: Path, server: ServerConfig) -> SiteFolder:
    config = SiteConfig(name="north", data=DataConfig(path="train.npz"), server=server)
    return SiteFolder(file=folder / "site.toml", config=config)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_wait_doubles_up_to_a_bound():
    backoff = Backoff(first_s=0.5, longest_s=3.0)
    assert [backoff.wait_s(n) for n in (1, 2, 3, 4, 5000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_command_line_names_files_and_no_secret(tmp_path):
    server = ServerConfig(address="hub:9092", root_certificates="ca.crt", private_key="flower.key")
    (tmp_path / "flower.key").write_text("SECRET")
    command = supernode.command_line(site(tmp_path, server))
    assert "SECRET" not in " ".join(command)
    assert str(tmp_path / "flower.key") in command
    assert str(tmp_path / "ca.crt") in command
    assert "--insecure" not in command
    insecure = supernode.command_line(site(tmp_path, ServerConfig(address="hub:1", insecure=True)))
    assert "--insecure" in insecure


def test_the_children_of_a_process_end_with_it(tmp_path):
    child = "import subprocess,sys; print(subprocess.Popen(['sleep','60']).pid, flush=True)"
    (tmp_path / "flower").mkdir()
    lines: list[str] = []
    log = logging.Logger("test")
    log.addHandler(handler := logging.Handler())
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    command = [sys.executable, "-c", child.replace("'sleep'", "'/bin/sleep'")]
    launch = supernode.Launch(command=command, environment={}, folder=tmp_path)
    end = supernode.run_once(
        launch, log, stopped=lambda: False, started=lambda _: None, grace_s=5.0
    )
    assert end == f"exit code 0, after saying: {lines[0]}"
    assert not lives(int(lines[0]))


def test_a_process_that_will_not_end_is_killed(tmp_path):
    stubborn = "import pathlib,signal,sys,time; signal.signal(15, signal.SIG_IGN)\n"
    stubborn += "print('up', flush=True); pathlib.Path(sys.argv[1]).touch()\n"
    stubborn += "while True: time.sleep(1)"
    up = tmp_path / "up"
    (tmp_path / "flower").mkdir()
    pids: list[int] = []
    command = [sys.executable, "-c", stubborn, str(up)]
    launch = supernode.Launch(command=command, environment={}, folder=tmp_path)
    end = supernode.run_once(launch, QUIET, stopped=up.exists, started=pids.append, grace_s=0.5)
    assert end == "signal 9, after saying: up"
    assert not lives(pids[0])
