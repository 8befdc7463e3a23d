from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.onboarding.preflight import check
from tests.support.sites import digits_site


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)


def test_a_sound_site_has_no_problems(tmp_path):
    report = check(digits_site(tmp_path), target="mlp", classes=3)
    assert report.problems == ()
    assert (report.site, report.train, report.validation) == ("north", 30, 6)
    assert report.per_class == {"0": 10, "1": 10, "2": 10}
    assert not (tmp_path / "state").exists()


def test_every_problem_is_found_at_once(tmp_path):
    (tmp_path / "state").write_text("a file in the way")
    more = 'device = "cuda"\n' if not torch.cuda.is_available() else ""
    more += '[policy]\ntargets = "cnn-xl"\nminimum_examples = 99\n'
    more += '[server]\naddress = "localhost:1"\nroot_certificates = "ca.crt"\nprivate_key = "k"\n'
    path = digits_site(tmp_path, more=more)
    problems = check(path, target="mlp", classes=2, connect=False).problems
    for part in (
        "no network is called 'cnn-xl'",
        "state: nothing can be written in",
        "root_certificates = 'ca.crt': the root certificates can't be read",
        "private_key = 'k': can't be read",
        "expected at least 99 training examples, got 30",
        "the network 'mlp' is not allowed",
        "more classes than the network has outputs: expected at most 2, got 3",
    ):
        assert [part in problem for problem in problems].count(True) == 1, part
    gpu = [problem for problem in problems if "there is no GPU to compute on" in problem]
    assert len(gpu) == (not torch.cuda.is_available())
    assert len(problems) == 7 + len(gpu)


def test_unusable_data_do_not_hide_what_else_is_wrong(tmp_path):
    path = digits_site(tmp_path, more='[policy]\ntargets = ""\n')
    (tmp_path / "train.npz").write_text("nonsense")
    problems = check(path).problems
    assert len(problems) == 2
    assert "the file is not an .npz archive" in problems[0]
    assert "no network is allowed" in problems[1]


def test_a_configuration_that_can_not_be_read_is_the_one_problem(tmp_path):
    (problem,) = check(tmp_path / "site.toml").problems
    assert "the site's configuration can't be read" in problem


def test_a_network_that_does_not_suit_the_inputs_is_a_problem(tmp_path):
    np.savez(tmp_path / "train.npz", x=np.eye(20), y=np.arange(20) % 2)
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\ndata = "train.npz"')
    (problem,) = check(path, target="cnn-xs").problems
    assert "this target works on images" in problem


def test_imbalance_scale_and_missing_validation_are_remarked(tmp_path):
    x = np.ones((31, 2)) * [1, 1e6]
    np.savez(tmp_path / "train.npz", x=x, y=[0] * 30 + [1])
    path = tmp_path / "site.toml"
    path.write_text('name = "a"\ndata = "train.npz"\nlabels = "0, 1"')
    report = check(path)
    assert report.problems == ()
    for part in ("1 training example of '1' against 24", "1 has no validation", "Feature 2 of 2"):
        assert any(part in remark for remark in report.remarks), part


def test_a_server_that_listens_is_reached_and_another_is_not(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        path = digits_site(
            tmp_path, more=f'[server]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        report = check(path)
        assert report.problems == ()
        for part in ("not encrypted", "tells nothing about its task, so it was not compared"):
            assert any(part in remark for remark in report.remarks)
    (problem,) = check(path).problems
    assert "the server can't be reached: Connection refused" in problem
    assert check(path, connect=False).problems == ()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_key_must_be_the_owners_alone(tmp_path, mode):
    write_key(tmp_path / "k", ec.generate_private_key(ec.SECP384R1()))
    (tmp_path / "k").chmod(mode)
    path = digits_site(tmp_path, more='[server]\naddress = "h:1"\nprivate_key = "k"\n')
    problems = check(path, connect=False).problems
    assert len(problems) == (mode != 0o600)
    assert all("others can read it" in problem for problem in problems)


def test_the_key_must_be_of_a_kind_that_flower_takes(tmp_path):
    write_key(tmp_path / "k", ed25519.Ed25519PrivateKey.generate())
    path = digits_site(tmp_path, more='[server]\naddress = "h:1"\nprivate_key = "k"\n')
    assert "not a key of an elliptic curve" in check(path, connect=False).problems[0]
