"""What is no ordinary file is refused at once, and `init`, `check` and readers say the same."""

from __future__ import annotations

import os
import socket

import pytest

from clients.onboarding.site_template import create_site
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.reading import read_raw, table_parts
from f2l_fed.errors import DataError
from tests.support.checked_site import checked, one_problem, write_rows


def special(folder, kind):
    path = folder / "data.csv"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "symbolic links":
        path.symlink_to(path.name)
    else:
        path.symlink_to("nowhere")
    return path


@pytest.mark.parametrize(
    "kind", ["a pipe", "a socket", "a device", "symbolic links", "do not exist"]
)
def test_special_files_are_refused_at_once(tmp_path, kind):
    path = special(tmp_path, kind)
    for act in (lambda: read_raw(path, ReadingConfig()), lambda: create_site(tmp_path, "a", path)):
        with pytest.raises(DataError, match=kind) as caught:
            act()
        assert caught.value.where == str(path)
    assert not (tmp_path / "site.toml").exists()


def test_special_files_among_parts_are_refused_at_once(tmp_path):
    write_rows(tmp_path / "parts/0.csv")
    os.mkfifo(tmp_path / "parts/1.csv")
    assert "a pipe" in one_problem(checked(tmp_path / "parts"), "1.csv")


@pytest.mark.parametrize("name", ["absent.npz", "absent", "absent.csv"])
def test_missing_data_are_named(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}: the data do not exist"):
        read_raw(tmp_path / name, ReadingConfig())


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "t.docx").touch()
    with pytest.raises(DataError, match=r"expected an \.npz, \.csv, \.tsv or \.parquet file"):
        read_raw(tmp_path / "t.docx", ReadingConfig())


def test_parts_of_several_kinds_are_refused(tmp_path):
    for name in ("a.csv", "b.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="several kinds"):
        table_parts(tmp_path, Findings(""))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path):
    path = write_rows(tmp_path / "t.csv")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_raw(path, ReadingConfig())
