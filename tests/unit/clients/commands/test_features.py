"""f2l-site features and check: a site's backbone before its first round."""

from __future__ import annotations

import stat

from f2l_fed.targets.feature_cache import FEATURES
from tests.support.backbones import NETWORK, installed, opened
from tests.support.commands import in_process
from tests.support.sites import digits_site


def site_with_backbone(folder, network=NETWORK):
    config = installed(folder)
    return digits_site(folder, more=f'[backbone]\nfile = "{config.file}"\nnetwork = "{network}"\n')


def test_features_are_made_before_the_first_task(tmp_path):
    site = site_with_backbone(tmp_path)
    done = in_process("f2l-site", "features", str(site))
    assert done.returncode == 0, done.stderr
    assert "12 features of 36 examples" in done.stdout
    assert opened(tmp_path).part.digest in done.stdout
    path = tmp_path / "state" / FEATURES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_mtime_ns
    assert in_process("f2l-site", "features", str(site)).returncode == 0
    assert path.stat().st_mtime_ns == before


def test_a_check_tells_the_backbone_or_what_is_wrong_with_it(tmp_path):
    done = in_process("f2l-site", "check", str(site_with_backbone(tmp_path)), "--offline")
    assert done.returncode == 0, done.stdout
    assert f"its digest is {opened(tmp_path).part.digest}" in done.stdout
    other = NETWORK.replace("small_backbone", "other_code")
    wrong = in_process("f2l-site", "check", str(site_with_backbone(tmp_path, other)), "--offline")
    assert wrong.returncode == 2
    assert "makes other features than its file was prepared with" in wrong.stdout


def test_a_site_without_a_backbone_is_told_so(tmp_path):
    done = in_process("f2l-site", "features", str(digits_site(tmp_path)))
    assert done.returncode != 0
    assert "no backbone is named" in done.stderr


def test_examples_that_are_none_of_the_backbone_s_inputs_are_refused(tmp_path):
    site = site_with_backbone(tmp_path)
    scaled = '[data]\npath = "train.npz"\nimage_scale = "standard"\n'
    site.write_text('name = "north"\n' + scaled + site.read_text().split("\n", 2)[2])
    done = in_process("f2l-site", "features", str(site))
    assert done.returncode == 2
    assert "[data] image_scale: the backbone scales the channels" in done.stderr
    assert not (tmp_path / "state" / FEATURES).exists()
