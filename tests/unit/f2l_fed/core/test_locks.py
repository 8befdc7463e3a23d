"""Lock files: one holder alone or several that share, and a trace of no one who has ended."""

from __future__ import annotations

import errno
import fcntl
import stat
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from f2l_fed.core.locks import is_locked, locked
from f2l_fed.errors import UsageError


def test_a_lock_has_one_holder(tmp_path):
    path = tmp_path / "made" / "lock"
    with locked(path):
        with pytest.raises(UsageError, match=r"lock: somebody works here\. Wait until"):
            with locked(path, wait=False, what="somebody works here"):
                pass
        with pytest.raises(UsageError, match="another process holds the lock"):
            with locked(path, wait=False, shared=True):
                pass
    with locked(path, wait=False):
        pass


def test_a_shared_lock_has_any_number_of_holders(tmp_path):
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True, wait=False):
        with pytest.raises(UsageError), locked(path, wait=False):
            pass


def test_who_waits_is_next(tmp_path):
    path, order = tmp_path / "lock", []

    def second():
        with locked(path):
            order.append("second")

    with ThreadPoolExecutor() as pool:
        with locked(path):
            waiting = pool.submit(second)
            sleep(0.1)
            order.append("first")
        waiting.result(30)
    assert order == ["first", "second"]


def test_whether_a_lock_is_held_is_told_without_a_trace(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    assert not path.exists()
    with locked(path):
        assert is_locked(path)
    assert not is_locked(path)
    with locked(path, shared=True):
        assert not is_locked(path)


def test_a_new_lock_file_has_the_mode_that_was_asked_for(tmp_path):
    with locked(tmp_path / "lock", mode=0o600):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_a_missing_folder_is_an_error_where_none_is_to_be_created(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "no" / "lock", create_folder=False):
        pass
    assert not (tmp_path / "no").exists()


def test_a_file_system_without_locks_is_named_with_the_remedy(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(UsageError, match=r"lock: this file system has no locks: .* local disk"):
        with locked(tmp_path / "lock"):
            pass
