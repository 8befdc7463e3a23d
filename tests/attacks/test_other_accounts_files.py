"""Other accounts of the machine at the files: of a federation, a zoo, a site, and of exports."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from clients.site.site import open_site
from f2l_fed.core.private_files import exported_files, private_files, private_folder
from f2l_fed.data.named_datasets import loading
from f2l_fed.zoo import NewRecord, Zoo
from server.supervision.supervisor import central
from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder
from tests.attacks.peers.trespasser import LOOK, open_to_others
from tests.support.central import BIN, command, prepare
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S


def without_umask(*words: str) -> None:
    done = subprocess.run(
        words,
        umask=0,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr


def a_zoo(path: Path) -> Zoo:
    layout = {"tensors": [{"name": "a", "shape": [3], "dtype": "float32"}]}
    zoo = Zoo.create(path, lineage="x", layout_digest="d", layout=layout, context_dim=2)
    row = NewRecord(
        key="1/north/0",
        site="north",
        round=1,
        weights=np.ones(3, np.float32),
        context=np.ones(2, np.float32),
    )
    zoo.append([row])
    return zoo


@needs_root
def test_a_new_federation_is_closed_to_others_without_any_umask():
    with public_folder() as place:
        (place / "all").mkdir()
        (place / "all").chmod(0o777)
        root = place / "all" / "central"
        without_umask(
            *(str(BIN / "f2l-server"), "init", str(root)),
            *("--set", "target.name=mlp", "--set", "target.input_shape=[1,8,8]"),
        )
        assert open_to_others(root) == []
        assert as_nobody(LOOK, str(root)).stdout == "True True\n"


@needs_root
def test_a_zoo_made_in_python_without_any_umask_can_not_be_entered():
    with public_folder() as place:
        before = os.umask(0)
        try:
            a_zoo(place / "zoo")
        finally:
            os.umask(before)
        assert Zoo.open(place / "zoo").stats().records == 1
        assert as_nobody(LOOK, str(place / "zoo")).stdout == "True True\n"


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750])
def test_the_folder_of_a_site_that_was_open_is_closed(mode):
    with public_folder() as place:
        file = digits_site(place / "north")
        state = place / "north" / "state"
        state.mkdir()
        state.chmod(mode)
        assert open_site(file).state == state
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert as_nobody(LOOK, str(state)).stdout == "True True\n"


@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_server_closes_the_folder_that_an_earlier_version_left_open(tmp_path, mode, caplog):
    root = tmp_path / "central"
    prepare(root)
    for folder in (root, root / "zoo"):
        folder.chmod(mode)

    async def start() -> None:
        async with central(root):
            raise AssertionError("not to come so far")

    # The service itself is not started: it stops where its authority is missing.
    (root / "certificates" / "ca.crt").unlink()
    (root / "certificates" / "server" / "ca.crt").unlink(missing_ok=True)
    with pytest.raises(OSError, match=r"ca\.crt"):
        asyncio.run(start())
    for folder in (root, root / "zoo"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert f"{folder}: other accounts could" in caplog.text


def test_a_folder_of_another_account_is_named_with_the_remedy(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    assert private_folder(tmp_path) == (
        f"{tmp_path}: other accounts can read it; its owner should run chmod go= on it."
    )


@pytest.mark.parametrize(
    ("umask", "mode"), [(0o000, 0o664), (0o002, 0o664), (0o022, 0o644), (0o027, 0o640)]
)
def test_exports_have_the_users_own_umask_but_nobody_else_writes_them(tmp_path, umask, mode):
    a_zoo(tmp_path / "zoo")
    done = subprocess.run(
        [BIN / "f2l-admin", "zoo", "export", str(tmp_path / "zoo"), str(tmp_path / "out")],
        umask=umask,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == mode
    copied = command("f2l-admin", "zoo", "copy", str(tmp_path / "zoo"), str(tmp_path / "backup"))
    assert copied.returncode == 0, copied.stderr
    assert open_to_others(tmp_path / "backup") == []


def test_the_umask_is_as_before_afterwards():
    before = os.umask(0o022)
    try:
        with private_files(), exported_files():
            pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_datasets_are_not_cached_where_another_account_may_have_been_first(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("F2L_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert loading._cache_folder() is None
    assert loading.load_dataset("digits").classes == 10
