"""The attackers' own check: another account is one without any right."""

from __future__ import annotations

from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder


@needs_root
def test_another_account_reads_what_all_may_read_and_nothing_else():
    code = "import os, sys; print(os.getuid(), os.getgroups()); print(open(sys.argv[1]).read())"
    with public_folder() as folder:
        (folder / "public").write_text("public")
        (secret := folder / "secret").write_text("secret")
        secret.chmod(0o600)
        done = as_nobody(code, str(secret))
        assert done.stdout == "65534 []\n"
        assert "PermissionError" in done.stderr
        assert as_nobody(code, str(folder / "public")).stdout == "65534 []\npublic\n"
