"""Cameras: fixed transforms of images, one for each site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from f2l_fed.data.array_checks import FloatArray

__all__ = ["Camera", "Lens", "QuarterTurn", "draw_lens", "draw_quarter_turn"]

Camera = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarterTurn:
    """A camera that is mounted turned, and may show negatives.

    Args:
        turns: Quarter turns, 0 to 3.
        inverted: Whether black is white.

    >>> camera = QuarterTurn(turns=2, inverted=True)
    >>> camera(np.float32([[[[0, 1], [0, 0]]]])).tolist()
    [[[[1.0, 1.0], [0.0, 1.0]]]]
    """

    turns: int
    inverted: bool

    def __call__(self, x: FloatArray) -> FloatArray:
        """Shows (n, C, H, W) images in [0, 1] as this camera sees them."""
        turned = np.ascontiguousarray(np.rot90(x, self.turns, axes=(-2, -1)))
        return 1 - turned if self.inverted else turned


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """A camera with small flaws.

    Args:
        angle_deg: Rotation about the centre, degrees.
        blur: Standard deviation of a Gaussian blur, as a share of the image's height.
        vignette: Brightness lost in the corners, in [0, 1].
        gain: Factor on the brightness.
        noise: Standard deviation of noise on every pixel.
        noise_seed: Seed of that noise.
    """

    angle_deg: float
    blur: float
    vignette: float
    gain: float
    noise: float
    noise_seed: int

    def __call__(self, x: FloatArray) -> FloatArray:
        """Shows (n, C, H, W) images in [0, 1] as this camera sees them."""
        # An import of a second, which only this transform needs.
        from scipy import ndimage

        height, width = x.shape[-2:]
        seen = ndimage.rotate(
            x, self.angle_deg, axes=(-1, -2), reshape=False, order=1, mode="nearest"
        )
        seen = ndimage.gaussian_filter(seen, self.blur * height, axes=(-2, -1))
        down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        light = self.gain * (1 - self.vignette * (down**2 + across**2) / 2)
        noise = np.random.default_rng(self.noise_seed).standard_normal(x.shape, np.float32)
        exposed: FloatArray = seen * light.astype(np.float32) + np.float32(self.noise) * noise
        return exposed.clip(0, 1, out=exposed)


def draw_quarter_turn(rng: np.random.Generator, shape: tuple[int, ...]) -> Camera | None:
    """Draws a turned or inverted camera for examples of a shape.

    Args:
        rng: Source of chance.
        shape: (C, H, W) or (F,). Only square images are turned, so that all sites keep one shape.

    Returns:
        The camera, or None for vectors, which have no sides to turn.
    """
    if len(shape) != 3:
        return None
    turns, inverted = int(rng.integers(4)), bool(rng.integers(2))
    return QuarterTurn(turns=turns if shape[1] == shape[2] else 0, inverted=inverted)


def draw_lens(rng: np.random.Generator) -> Camera:
    """Draws a camera with flaws that a person would still read through."""
    return Lens(
        angle_deg=float(rng.uniform(-20, 20)),
        blur=float(rng.uniform(0, 0.035)),
        vignette=float(rng.uniform(0, 0.6)),
        gain=float(rng.uniform(0.6, 1.4)),
        noise=float(rng.uniform(0, 0.1)),
        noise_seed=int(rng.integers(2**63)),
    )
