"""The features that a site keeps: made once, for its owner's eyes, never for other data."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest
import torch

from f2l_fed.errors import DataError, TargetError
from f2l_fed.targets.backbone import features_of
from f2l_fed.targets.feature_cache import FEATURES, cached_features
from tests.support.backbones import SHAPE, installed, opened
from tests.support.devices import on_devices
from tests.support.small import rng


def examples(count, seed=0):
    return torch.rand(count, *SHAPE, generator=rng(seed))


def without_code(backbone):
    """The same backbone, whose network can no longer be built."""
    return replace(backbone, config=replace(backbone.config, network="nowhere_at_all:make"))


def test_features_are_made_once(tmp_path):
    backbone, parts, told = opened(tmp_path), (examples(70), examples(3, 1)), []
    first = cached_features(tmp_path, backbone, parts, lambda *now: told.append(now))
    assert told == [(64, 73), (73, 73)]
    assert stat.S_IMODE((tmp_path / FEATURES).stat().st_mode) == 0o600
    again = cached_features(tmp_path, backbone, parts, lambda *now: told.append(now))
    assert len(told) == 2
    for part, one, other in zip(parts, first, again, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, features_of(backbone.front(), part))


@on_devices
def test_a_device_makes_the_features_of_the_cpu(tmp_path, device):
    backbone, x = opened(tmp_path), examples(70)
    (made,) = cached_features(tmp_path, backbone, (x,), device=device)
    assert made.device == torch.device("cpu")
    torch.testing.assert_close(made, features_of(backbone.front(), x), rtol=1e-3, atol=1e-4)


def test_another_network_makes_its_own(tmp_path):
    backbone, x = opened(tmp_path), examples(5)
    cached_features(tmp_path, backbone, (x,))
    with pytest.raises(TargetError, match="can't be imported"):
        cached_features(tmp_path, without_code(backbone), (x,))


def test_features_that_are_not_finite_are_not_kept(tmp_path):
    backbone, x = opened(tmp_path), examples(5)
    x[2, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="1 of 5 examples are not finite"):
        cached_features(tmp_path, backbone, (x,))
    assert not (tmp_path / FEATURES).exists()


def test_a_file_that_is_replaced_in_the_meantime_is_not_taken_for_the_one_before(tmp_path):
    backbone, x = opened(tmp_path), examples(5)
    installed(tmp_path, resize=(4, 4))
    with pytest.raises(TargetError, match="has changed in the meantime"):
        cached_features(tmp_path, backbone, (x,))
    assert not (tmp_path / FEATURES).exists()


def test_changed_examples_and_a_changed_backbone_are_noticed(tmp_path):
    backbone, x = opened(tmp_path), examples(5)
    (before,) = cached_features(tmp_path, backbone, (x,))
    changed = x.clone()
    changed[3, 0, 0, 0] += 0.5
    (after,) = cached_features(tmp_path, backbone, (changed,))
    torch.testing.assert_close(after[:3], before[:3])
    assert not torch.equal(after[3], before[3])
    installed(tmp_path, resize=(4, 4))
    other = type(backbone).of(backbone.config, tmp_path)
    (anew,) = cached_features(tmp_path, other, (x,))
    torch.testing.assert_close(anew, features_of(other.front(), x))
    assert not torch.allclose(anew, before)


def test_a_damaged_file_is_made_anew(tmp_path):
    backbone, x = opened(tmp_path), examples(5)
    (before,) = cached_features(tmp_path, backbone, (x,))
    (tmp_path / FEATURES).write_bytes(b"torn")
    assert torch.equal(cached_features(tmp_path, backbone, (x,))[0], before)
