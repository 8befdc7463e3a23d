from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from f2l_fed.errors import ZooError
from f2l_fed.zoo import Fault, Zoo
from f2l_fed.zoo.format import commit_log, sealed_json, shards
from tests.support.waiting import PATIENCE_S
from tests.unit.f2l_fed.zoo.samples import (
    CONTEXT,
    WEIGHTS,
    flip_bit,
    keys_of,
    new_record,
    new_records,
    new_zoo,
    shard_files,
)


def filled(path: Path) -> Zoo:
    zoo = new_zoo(path)
    zoo.append(new_records("0/a/0", "1/a/0"))
    zoo.append(new_records("0/b/0"))
    zoo.append(new_records("2/a/0"))
    return zoo


def test_every_flipped_bit_of_a_shard_or_log_entry_is_found_in_its_file(path: Path):
    zoo = filled(path)
    assert zoo.verify() == ()
    stream = np.random.default_rng(0)
    for file in (*shard_files(path), *sorted((path / "log").iterdir())):
        sound = file.read_bytes()
        # One bit in each 16 bytes: length field, header, padding, weights, contexts, every field.
        for start in range(0, len(sound), 16):
            position = min(start + int(stream.integers(16)), len(sound) - 1)
            data = bytearray(sound)
            data[position] ^= 1 << int(stream.integers(8))
            file.write_bytes(data)
            faults = zoo.verify()
            assert {fault.file for fault in faults} == {str(file.relative_to(path))}, position
        file.write_bytes(sound)
    assert zoo.verify() == ()


def test_every_flipped_bit_of_zoo_json_is_found(path: Path):
    filled(path)
    sound = (path / "zoo.json").read_bytes()
    stream = np.random.default_rng(0)
    for position in range(len(sound)):
        data = bytearray(sound)
        data[position] ^= 1 << int(stream.integers(8))
        (path / "zoo.json").write_bytes(data)
        with pytest.raises(ZooError, match=r"zoo\.json: (the file is|unknown format version)"):
            Zoo.open(path)


def test_the_ways_of_a_shard_to_be_wrong_are_told_apart(path: Path):
    zoo = filled(path)
    one, two = shard_files(path)[:2]
    sound = {file: file.read_bytes() for file in (one, two)}
    names = {file: f"shards/{file.name}" for file in (one, two)}

    def faults(**changes: bytes | None) -> list[str]:
        for file, data in sound.items():
            file.write_bytes(data)
        for file, data in zip((one, two), (changes["one"], changes.get("two", b"-")), strict=True):
            if data is None:
                file.unlink()
            elif data != b"-":
                file.write_bytes(data)
        found = list(map(str, zoo.verify()))
        for record in zoo.snapshot().records():
            if record.shard == one.name.split(".")[0] and found:
                with pytest.raises(ZooError):
                    Zoo.open(path).snapshot().weights([record])
        return found

    whole = sound[one]
    assert faults(one=b"") == [f"{names[one]}: the shard is empty"]
    for size in (1, 7, 8, 30, len(whole) // 2, len(whole) - 1):
        (fault,) = faults(one=whole[:size])
        assert fault == f"{names[one]}: the shard is truncated"
    assert faults(one=whole + b"x") == [f"{names[one]}: the shard has bytes behind its end"]
    assert faults(one=b"\0" * len(whole)) == [
        f"{names[one]}: the shard's header is damaged or made for another zoo"
    ]
    assert faults(one=None) == [f"{names[one]}: the file is missing"]
    assert faults(one=sound[two]) == [f"{names[one]}: a copy of {names[two]} is in this place"]
    assert faults(one=None, two=whole) == [
        f"{names[one]}: the file is missing",
        f"{names[two]}: a copy of {names[one]} is in this place",
    ]
    assert faults(one=whole) == []
    renamed = one.rename(path / "shards" / "other.safetensors")
    assert list(map(str, zoo.verify())) == [
        f"{names[one]}: the file was renamed to shards/other.safetensors; name it as before"
    ]
    one.write_bytes(whole)
    assert list(map(str, zoo.verify())) == [
        f"shards/other.safetensors: a copy of {names[one]}; delete it"
    ]
    renamed.write_bytes(b"something")
    assert list(map(str, zoo.verify())) == [
        "shards/other.safetensors: no log entry names this file, and it isn't a whole shard"
    ]


def test_the_ways_of_a_log_entry_to_be_wrong_are_told_apart(path: Path):
    zoo = filled(path)
    one, two = path / commit_log.name(1), path / commit_log.name(2)
    sound = two.read_bytes()
    for data, what in (
        (b"", "the file is empty"),
        (sound[:-1], "the file is truncated"),
        (sound[:40], "the file is truncated"),
        (sound + b" ", "the file is damaged"),
        (b"[" * 5000 + b"}", "the file is damaged"),
        (sealed_json.seal({"commit": 2}), "not a log entry"),
        (one.read_bytes(), f"a copy of {commit_log.name(1)} is in this place"),
    ):
        two.write_bytes(data)
        assert zoo.verify()[0] == Fault(file=commit_log.name(2), what=what)
        with pytest.raises(ZooError):
            zoo.reindex()
    two.unlink()
    one.rename(two)
    assert list(map(str, zoo.verify()))[:2] == [
        f"{commit_log.name(1)}: the log entry is missing",
        f"{commit_log.name(2)}: {commit_log.name(1)} was renamed to this",
    ]
    two.rename(one)
    two.write_bytes(sound)
    (path / "log" / "notes.txt").touch()
    assert zoo.verify() == (Fault(file="log/notes.txt", what="not the name of a log entry"),)


def test_a_flipped_bit_of_a_row_is_found_with_the_row(path: Path):
    zoo = filled(path)
    record = zoo.snapshot().records(site="a")[1]
    name = shards.name(record.shard)
    flip_bit(path / name, len(shards.header(2, WEIGHTS, CONTEXT)) + 4 * WEIGHTS + 1)
    assert zoo.verify() == (Fault(file=name, row=1, what="the weights of 1/a/0 are damaged"),)
    view = Zoo.open(path).snapshot()
    with pytest.raises(ZooError, match=f"{name}, row 1: the shard is damaged"):
        view.weights([record])
    assert view.contexts([record]).shape == (1, CONTEXT)


def test_a_change_that_keeps_the_row_s_checksum_is_found_by_the_name(path: Path):
    zoo = new_zoo(path)
    zoo.append([new_record("0/a/0", weights=np.ones(WEIGHTS, np.float32))])
    (file,) = shard_files(path)
    data = bytearray(file.read_bytes())
    start = len(shards.header(1, WEIGHTS, CONTEXT))
    # A multiple of CRC-32's generator polynomial leaves the checksum as it is.
    for offset, byte in enumerate((0x1DB710641).to_bytes(5, "little")):
        data[start + offset] ^= byte
    file.write_bytes(data)
    assert [str(fault).split(": ")[1] for fault in zoo.verify()] == [
        "the content doesn't match the name"
    ]


def test_a_truncated_shard_is_found(path: Path):
    zoo = filled(path)
    record = zoo.snapshot().records(site="b")[0]
    file = path / shards.name(record.shard)
    file.write_bytes(file.read_bytes()[:-4])
    assert [fault.file for fault in zoo.verify()] == [shards.name(record.shard)]
    with pytest.raises(ZooError, match=r"the shard is truncated: expected .* 212 bytes, got 208 b"):
        zoo.snapshot().weights([record])


def test_a_missing_shard_is_found(path: Path):
    zoo = filled(path)
    record = zoo.snapshot().records(site="b")[0]
    (path / shards.name(record.shard)).unlink()
    assert zoo.verify() == (Fault(file=shards.name(record.shard), what="the file is missing"),)
    with pytest.raises(ZooError, match=r"the file is missing\. Restore it from a backup"):
        zoo.snapshot().weights([record])


def test_a_row_that_is_not_finite_is_found(path: Path):
    zoo = new_zoo(path)
    row = np.full((1, WEIGHTS), np.inf, np.float32)
    sane = new_record("0/a/0")
    zoo.append([sane])
    entry = next(commit_log.entries(zoo.snapshot().store))[1]
    data = shards.encode(row, sane.context[None])
    (shard_files(path)[0]).write_bytes(data)
    faults = zoo.verify()
    assert [fault.row for fault in faults] == [0]
    assert entry.records[0].key in faults[0].what


def test_an_append_onto_a_damaged_shard_is_refused(path: Path):
    zoo = new_zoo(path)
    same = new_record("0/a/0")
    zoo.append([same])
    flip_bit(shard_files(path)[0], -1)
    with pytest.raises(ZooError, match="the shard is damaged"):
        zoo.append([new_record("1/a/0", weights=same.weights, context=same.context)])


def test_a_gap_in_the_log_is_found(path: Path):
    filled(path)
    (path / commit_log.name(2)).unlink()
    zoo = Zoo.open(path)
    assert zoo.verify() == (Fault(file=commit_log.name(2), what="the log entry is missing"),)
    for read in (zoo.snapshot, zoo.stats, lambda: zoo.append(new_records("9/a/0"))):
        with pytest.raises(ZooError, match=r"0002\.json: a log entry is missing"):
            read()


def test_the_index_remembers_a_lost_end_of_the_log_until_it_is_rebuilt(path: Path):
    filled(path).snapshot()
    (path / commit_log.name(3)).unlink()
    zoo = Zoo.open(path)
    assert [fault.what for fault in zoo.verify()] == ["a log entry is missing"]
    with pytest.raises(ZooError, match=r"0003\.json: a log entry is missing: expected commit 3"):
        zoo.snapshot()
    zoo.reindex()
    assert zoo.snapshot().commit == 2


def test_an_exchanged_log_entry_breaks_the_chain(path: Path):
    zoo = filled(path)
    entry = commit_log.read(zoo.snapshot().store, 2)[1]
    forged = commit_log.Entry(number=2, previous=entry.previous, kind="forget", site="b")
    (path / commit_log.name(2)).write_bytes(commit_log.encode(forged))
    assert Fault(file=commit_log.name(3), what="the log's chain is broken") in zoo.verify()
    with pytest.raises(ZooError, match=r"0003\.json: the log's chain is broken: expected previous"):
        zoo.reindex()


def test_a_log_entry_at_another_place_is_found(path: Path):
    zoo = filled(path)
    (path / commit_log.name(2)).write_bytes((path / commit_log.name(1)).read_bytes())
    assert zoo.verify()[0] == Fault(
        file=commit_log.name(2), what=f"a copy of {commit_log.name(1)} is in this place"
    )


def test_another_format_version_is_named(path: Path):
    new_zoo(path)
    text = (path / "zoo.json").read_text().replace('"format":1', '"format":2')
    (path / "zoo.json").write_text(text)
    with pytest.raises(
        ZooError, match="unknown format version of the zoo: expected format 1, got format 2"
    ):
        Zoo.open(path)


def test_a_damaged_zoo_json_is_named(path: Path):
    new_zoo(path)
    text = (path / "zoo.json").read_text().replace("tiny", "tony")
    (path / "zoo.json").write_text(text)
    with pytest.raises(ZooError, match=r"zoo\.json: the file is damaged"):
        Zoo.open(path)


def test_a_folder_without_zoo_json_is_not_a_zoo(tmp_path: Path):
    with pytest.raises(ZooError, match="not a zoo"):
        Zoo.open(tmp_path)


def test_sealed_json_of_something_else_is_not_a_zoo(path: Path):
    new_zoo(path)
    (path / "zoo.json").write_bytes(sealed_json.seal({"other": 1}))
    with pytest.raises(ZooError, match="not a zoo"):
        Zoo.open(path)


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        folder.chmod(mode)


def test_a_folder_that_is_not_writable_can_be_read_but_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    filled(path)
    for file in ("lock", "index.lock", "index.sqlite"):
        (path / file).unlink()
    # The parents of a test's folder are closed to other users, the working folder is open.
    monkeypatch.chdir(path)
    with unprivileged(path):
        zoo = Zoo.open(".")
        view = zoo.snapshot()
        assert view.weights(view.records()).shape == (4, WEIGHTS)
        assert zoo.verify() == ()
        with pytest.raises(ZooError, match="the folder is not writable"):
            zoo.append(new_records("9/a/0"))
        with pytest.raises(ZooError, match="the folder is not writable"):
            new_zoo(Path("below"))


@contextmanager
def memory_disk(folder: Path, size_kib: int) -> Iterator[None]:
    """Mounts a disk of its own at a folder; a limit of the file size where that isn't allowed."""
    folder.mkdir()
    options = f"size={size_kib}k"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here; the limit of the file size is tested below")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path):
    disk = tmp_path / "disk"
    with memory_disk(disk, 512):
        zoo = new_zoo(disk / "zoo")
        (disk / "ballast").write_bytes(bytes(1 << 16))
        acknowledged = []
        refusal = r"no space left to write.*all earlier commits are safe"
        with pytest.raises(ZooError, match=refusal):  # noqa: PT012
            for number in range(10_000):
                zoo.append(new_records(f"{number}/a/0"))
                acknowledged.append(f"{number}/a/0")
        assert acknowledged
        # With nothing left for an index either, the zoo can still be read.
        (disk / "rest").write_bytes(b"")
        with suppress(OSError), (disk / "rest").open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        found = keys_of(Zoo.open(disk / "zoo").snapshot().records())
        assert found[: len(acknowledged)] == acknowledged
        with pytest.raises(ZooError, match=refusal):
            zoo.append(new_records("0/b/0"))
        (disk / "ballast").unlink()
        zoo.forget("a")
        zoo.append(new_records("0/b/0"))
        assert keys_of(zoo.snapshot().records()) == ["0/b/0"]
        assert zoo.verify() == ()


def test_a_disk_that_is_mounted_read_only_can_be_read_but_not_written(tmp_path: Path):
    disk = tmp_path / "disk"
    with memory_disk(disk, 4096):
        filled(disk / "zoo")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        zoo = Zoo.open(disk / "zoo")
        view = zoo.snapshot()
        assert view.weights(view.records()).shape == (4, WEIGHTS)
        assert zoo.verify() == ()
        for write in (
            lambda: zoo.append(new_records("9/a/0")),
            lambda: zoo.forget("a"),
            zoo.compact,
            lambda: new_zoo(disk / "other"),
        ):
            with pytest.raises(ZooError, match=r"not writable.*mounted read-only"):
                write()
        assert zoo.verify() == ()


def append_without_room(path: Path) -> None:
    zoo = Zoo.open(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
    with pytest.raises(ZooError, match=r"no space left to write.*Free some space and repeat"):
        zoo.append(new_records("9/a/0"))


def test_a_full_disk_is_named_and_leaves_the_zoo_whole(path: Path):
    zoo = filled(path)
    process = multiprocessing.get_context("spawn").Process(target=append_without_room, args=(path,))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert list((path / "tmp").iterdir()) == []
    assert zoo.verify() == ()
    zoo.append(new_records("9/a/0"))
    assert keys_of(zoo.snapshot().records(round=9)) == ["9/a/0"]
