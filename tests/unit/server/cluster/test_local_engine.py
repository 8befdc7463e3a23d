"""Jobs in forked processes: results, errors, lost processes, and the end of all of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError, DataError, RoundError
from server.cluster import backend
from server.cluster.engine import running_engine
from server.cluster.fork_server import FORK_SERVER
from server.cluster.local_engine import LocalEngine
from server.rounds.state import Interrupted
from tests.support import jobs
from tests.support.waiting import holds


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    with running_engine(RayConfig(cpus=2)) as engine:
        assert isinstance(engine, LocalEngine)
        yield engine


def lives(pid: int) -> bool:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_process_serves_one_job_after_the_other_and_is_forked_from_one_without_threads(engine):
    assert engine.run(jobs.total, 1, 2, 3) == 6
    pid = engine.run(jobs.process_of)
    assert pid == engine.run(jobs.process_of) != os.getpid()
    assert len(list(Path(f"/proc/{FORK_SERVER.pid}/task").iterdir())) == 1
    engine.close()
    assert holds(lambda: not lives(pid))
    with pytest.raises(Interrupted, match="stopped"):
        engine.run(jobs.process_of)


def test_jobs_that_yield_go_on_side_by_side_and_may_be_left(engine):
    first, second = engine.stream(jobs.counted, 3), engine.stream(jobs.counted, 100_000)
    assert next(second) == 0
    assert list(first) == [0, 1, 2]
    second.close()
    assert list(engine.stream(jobs.counted, 2)) == [0, 1]


def test_jobs_are_gathered_in_their_order_and_not_more_at_a_time_than_may_be(engine):
    stop = threading.Event()
    assert engine.gather(jobs.total, 10, each=range(20), stop=stop) == list(range(10, 30))
    assert len(set(engine.gather(jobs.process_of, each=range(20), stop=stop))) <= 2


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("typed", DataError, "site.toml: no data. Send some."),
        ("disk", OSError, "No space left"),
        ("other", RoundError, "ZeroDivisionError: by nought"),
        ("end", RoundError, "SystemExit: 3"),
        ("odd", RoundError, "OddError: no room, 28"),
    ],
)
def test_an_error_of_a_job_is_raised_and_its_process_goes_on(engine, kind, error, said):
    pid = engine.run(jobs.process_of)
    with pytest.raises(error, match=said):
        engine.run(jobs.failing, kind)
    assert engine.run(jobs.process_of) == pid


def test_a_job_whose_process_is_killed_is_repeated_and_yields_nothing_twice(engine, tmp_path):
    assert list(engine.stream(jobs.killed_once, tmp_path / "mark", 5)) == [0, 1, 2, 3, 4]


def test_a_job_that_is_always_killed_interrupts_the_round(engine):
    with pytest.raises(Interrupted, match="the machine lost a task"):
        engine.run(jobs.killed)
    assert engine.run(jobs.total, 1) == 1


def test_a_stop_and_a_close_end_jobs_that_last(engine, tmp_path):
    stop, marks = threading.Event(), [tmp_path / "a", tmp_path / "b"]
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(engine.gather, jobs.lasting, each=marks, stop=stop)
        assert holds(lambda: all(mark.exists() for mark in marks))
        stop.set()
        with pytest.raises(RoundError, match="stopped"):
            waiting.result()


def test_jobs_that_an_exchange_does_not_come_to_are_ended_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "candidates_here", jobs.marked)
    probes = {f"site-{number:02d}": torch.zeros(1, 1) for number in range(3 * 16)}
    with running_engine(RayConfig(cpus=2, generators=3)) as engine:
        offered = backend.EngineBackend(root=tmp_path, engine=engine).candidates("00001", probes)
        assert next(offered)[0] == "site-00"
        assert holds(lambda: len(list(tmp_path.iterdir())) == 3)
        offered.close()
        begun = [int(mark.name) for mark in tmp_path.iterdir()]
        assert holds(lambda: not any(map(lives, begun)))
        # Likewise where a stream is dropped before anybody has read it.
        engine.stream(jobs.counted, 100_000)
        assert engine._busy == set()


def test_a_fork_server_that_was_killed_is_started_again(engine):
    busy = engine.stream(jobs.counted, 100_000)
    assert next(busy) == 0
    killed = FORK_SERVER.pid
    os.kill(killed, signal.SIGKILL)
    assert holds(lambda: not lives(killed))
    assert engine.run(jobs.total, 1) == 1
    assert FORK_SERVER.pid != killed
    assert next(busy) == 1
    busy.close()


@pytest.mark.parametrize("asked", ["meanwhile", "afterwards"])
def test_a_module_that_can_not_be_imported_is_named_at_once(engine, tmp_path, monkeypatch, asked):
    (tmp_path / "broken_module.py").write_text('raise ImportError("libblas.so: no such file")')
    monkeypatch.syspath_prepend(tmp_path)
    FORK_SERVER.end()
    FORK_SERVER.start("broken_module")
    if asked == "afterwards":
        assert holds(lambda: not lives(FORK_SERVER.pid))
    with pytest.raises(Interrupted, match=r"can't start: got ImportError: libblas\.so") as told:
        engine.run(jobs.total, 1)
    assert "Mend the installation" in str(told.value)
    assert engine.run(jobs.total, 1) == 1


def test_a_close_does_not_wait_for_the_imports_of_the_fork_server(engine, tmp_path, monkeypatch):
    goes_on = tmp_path / "goes_on"
    (tmp_path / "slow_module.py").write_text(
        "import pathlib, time\n"
        f"while not pathlib.Path({str(goes_on)!r}).exists(): time.sleep(0.05)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    FORK_SERVER.end()
    FORK_SERVER.start("slow_module")
    with ThreadPoolExecutor() as threads:
        try:
            waiting = threads.submit(engine.run, jobs.total, 1)
            assert holds(lambda: engine._busy)
            engine.close()
            assert holds(waiting.done)
        finally:
            goes_on.touch()
    with pytest.raises(Interrupted, match="stopped"):
        waiting.result()


def test_ray_is_asked_for_by_name_or_by_what_only_it_can_do():
    assert [RayConfig(engine=name).on_ray for name in ("auto", "local", "ray")] == [
        False,
        False,
        True,
    ]
    assert RayConfig(address="auto").on_ray
    assert RayConfig(train_workers=1).on_ray
    with pytest.raises(ConfigError, match="engine"):
        RayConfig(engine="local", address="auto")
    with pytest.raises(ConfigError, match="engine"):
        RayConfig(engine="dask")
