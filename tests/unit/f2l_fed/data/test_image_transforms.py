"""Cameras of simulated sites."""

from __future__ import annotations

import numpy as np

from f2l_fed.core.random_streams import stream
from f2l_fed.data.image_transforms import Lens, QuarterTurn, draw_lens, draw_quarter_turn

IMAGES = stream(0, "images").random((3, 1, 9, 9), np.float32)


def lens(**flaws: float) -> Lens:
    clean = {"angle_deg": 0, "blur": 0, "vignette": 0, "gain": 1, "noise": 0, "noise_seed": 0}
    return Lens(**(clean | flaws))


def test_four_quarter_turns_and_two_inversions_change_nothing():
    turned = IMAGES
    for _ in range(4):
        turned = QuarterTurn(turns=1, inverted=True)(turned)
    np.testing.assert_allclose(turned, IMAGES, atol=1e-6)


def test_only_square_images_are_turned():
    cameras = [draw_quarter_turn(stream(k), (1, 4, 4)) for k in range(40)]
    assert {(camera.turns, camera.inverted) for camera in cameras} == {
        (turns, inverted) for turns in range(4) for inverted in (False, True)
    }
    oblong = [draw_quarter_turn(stream(k), (1, 4, 6)) for k in range(40)]
    assert {(camera.turns, camera.inverted) for camera in oblong} == {(0, False), (0, True)}
    assert draw_quarter_turn(stream(0), (7,)) is None


def test_a_lens_without_flaws_changes_nothing():
    np.testing.assert_allclose(lens()(IMAGES), IMAGES, atol=1e-6)


def test_every_flaw_does_what_it_is_called():
    spot = np.zeros((1, 1, 9, 9), np.float32)
    spot[0, 0, 1, 4] = 1
    right = lens(angle_deg=-20)(spot)[0, 0]
    assert (right * np.arange(9)).sum() / right.sum() > 4.5
    assert lens(blur=0.1)(spot).max() < 0.8
    flat = np.full((1, 1, 9, 9), 0.5, np.float32)
    shaded = lens(vignette=0.6)(flat)[0, 0]
    np.testing.assert_allclose((shaded[4, 4], shaded[0, 0]), (0.5, 0.2), atol=1e-6)
    np.testing.assert_allclose(lens(gain=1.4)(flat), 0.7, atol=1e-6)
    assert 0.05 < lens(noise=0.1)(flat).std() < 0.15


def test_drawn_lenses_keep_shape_type_and_range_and_see_the_same_every_time():
    for k in range(10):
        camera = draw_lens(stream(k))
        seen = camera(IMAGES)
        assert seen.shape == IMAGES.shape
        assert seen.dtype == np.float32
        assert seen.min() >= 0
        assert seen.max() <= 1
        assert np.array_equal(seen, camera(IMAGES))
