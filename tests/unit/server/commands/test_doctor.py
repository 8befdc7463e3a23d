"""f2l-admin doctor: what it tells of a federation's folder."""

from __future__ import annotations

from tests.support.commands import in_process


def test_a_folder_without_a_federation_is_a_problem(tmp_path):
    to = ("--server", "127.0.0.1:9", "--certificates", str(tmp_path))
    done = in_process("f2l-admin", *to, "doctor", "--folder", str(tmp_path / "nope"))
    assert done.returncode == 1
    problems = done.stdout.split("problems\n")[1].split("\n\n")[0]
    assert f"{tmp_path / 'nope'}: the folder is not a federation" in problems
