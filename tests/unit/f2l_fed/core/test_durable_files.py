"""A file is as it was or as it should be, and nothing else is left in its folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from f2l_fed.core.durable_files import file_pieces, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced_without_a_trace(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, "first, and much longer")
    write_atomically(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert names(tmp_path) == ["state.json"]


def test_a_large_file_is_copied_from_a_byte_on_in_pieces(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    pieces = list(file_pieces(tmp_path / "large", 7))
    assert len(pieces) == 3
    write_atomically(tmp_path / "copy", (b"start ", *pieces), mode=0o600)
    assert (tmp_path / "copy").read_bytes() == b"start " + content[7:]

    def broken():
        yield b"some"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_atomically(tmp_path / "copy", broken())
    assert (tmp_path / "copy").stat().st_size > 2**20
    assert names(tmp_path) == ["copy", "large"]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "no utf-8: \ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


def test_a_target_that_cannot_be_replaced_leaves_no_draft(tmp_path):
    (tmp_path / "state.json").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "state.json", "text")
    assert names(tmp_path) == ["state.json"]


def test_readers_that_hold_the_old_file_keep_it(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, "new")
        assert reader.read() == "old"


def test_threads_that_write_the_same_file_leave_one_whole_version(tmp_path):
    path = tmp_path / "state.json"
    versions = [str(number) * 100_000 for number in range(8)]
    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda version: write_atomically(path, version), versions))
        assert path.read_text() in versions
    assert names(tmp_path) == ["state.json"]


def test_a_secret_is_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "key.pem"
    write_atomically(path, "secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
