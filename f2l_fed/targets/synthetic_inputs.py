"""Synthetic inputs, on which networks are compared without any data.

The pictures are procedural. They have what natural ones have and noise lacks: edges, closed
figures on a ground, occlusion, shading and textures at all scales, on dark and on light grounds.

Reference:
    Baradad et al.: Learning to see by looking at noise, arXiv 2106.05963 (which image processes
    without data teach networks most). Lee, Mumford, Huang: Occlusion models for natural images,
    IJCV 41, 2001 (dead leaves).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_BEZIER = 10
"""Straight pieces of one curve."""


def synthetic_inputs(input_shape: tuple[int, ...], count: int, rng: torch.Generator) -> Tensor:
    """Draws inputs for a behavioural loss.

    Args:
        input_shape: (C, H, W) for pictures; any other shape stands for standardised features.
        count: Number of inputs.
        rng: Draws them.

    Returns:
        (count, *input_shape) float32; pictures in [0, 1], features normal.

    >>> draws = torch.Generator().manual_seed(0)
    >>> synthetic_inputs((1, 28, 28), 3, draws).shape
    torch.Size([3, 1, 28, 28])
    """
    if len(input_shape) != 3:
        return torch.randn(count, *input_shape, generator=rng)
    kinds = torch.randint(len(_KINDS), (count,), generator=rng)
    images = torch.empty(count, *input_shape)
    for index, kind in enumerate(_KINDS):
        picks = (kinds == index).nonzero().squeeze(1)
        # The Fourier transform of no picture at all is an error.
        if len(picks):
            images[picks] = kind(_Canvas(len(picks), input_shape, rng))
    return images


class _Canvas:
    """A batch of pictures to be drawn: its coordinates and its source of chance.

    Coordinates run from -1 to 1 along the longer side, so figures look alike at any resolution.
    """

    def __init__(self, count: int, shape: tuple[int, ...], rng: torch.Generator) -> None:
        self.count, (self.channels, self.height, self.width), self.rng = count, shape, rng
        side = max(self.height, self.width)
        self.pixel = 2 / side
        self.y = (torch.arange(self.height) * 2 + 1 - self.height)[:, None] / side
        self.x = (torch.arange(self.width) * 2 + 1 - self.width)[None, :] / side

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(count, *shape) numbers in [low, high)."""
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.rng)

    def chance(self, share: float) -> Tensor:
        """(count, 1, 1) bool, true with this probability."""
        return self.uniform(0, 1, 1, 1) < share

    def mask(self, distance: Tensor) -> Tensor:
        """Coverage of pixels from (count, H, W) signed distances, negative inside."""
        return (0.5 - distance / self.pixel).clamp(0, 1)

    def field(self, *, flattest: float = 1.0, steepest: float = 3.0) -> Tensor:
        """(count, H, W) smooth random fields of many grain sizes and directions, about N(0, 1)."""
        fy = torch.fft.fftfreq(self.height)[:, None] * self.height
        fx = torch.fft.rfftfreq(self.width)[None, :] * self.width
        angle, stretch = self.uniform(0, math.pi, 1, 1), self.uniform(-1, 1, 1, 1).exp()
        along = (fx * angle.cos() + fy * angle.sin()) * stretch
        across = (fy * angle.cos() - fx * angle.sin()) / stretch
        power = (1 + along**2 + across**2) ** (-self.uniform(flattest, steepest, 1, 1) / 2)
        noise = torch.randn(self.count, self.height, self.width, generator=self.rng)
        field: Tensor = torch.fft.irfft2(
            torch.fft.rfft2(noise) * power, s=(self.height, self.width)
        )
        field = field - field.mean((1, 2), keepdim=True)
        return field / field.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)

    def paint(self) -> Tensor:
        """(count, C, H, W) fillings: flat, or shaded by a field; one base level each."""
        tint = self.uniform(-0.25, 0.25, self.channels, 1, 1) * (self.channels > 1)
        shade = self.uniform(0, 0.25, 1, 1) * self.chance(0.5)
        return tint + (shade * self.field())[:, None]

    def compose(self, mask: Tensor) -> Tensor:
        """Puts figures on grounds: (count, H, W) coverage to (count, C, H, W) in [0, 1]."""
        dark, light = self.uniform(-0.4, 0.4, 1, 1), self.uniform(0.5, 1.2, 1, 1)
        ground = (self.paint() * self.chance(0.3)[:, None] + dark[:, None]).clamp(0, 1)
        figure = (self.paint() + light[:, None]).clamp(0, 1)
        image = torch.lerp(ground, figure, mask[:, None])
        return torch.where(self.chance(0.4)[:, None], 1 - image, image)


def _strokes(canvas: _Canvas) -> Tensor:
    """Curves of one to three pieces, like handwriting."""
    t = torch.linspace(0, 1, _BEZIER + 1)[:, None]
    bernstein = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    pieces = torch.randint(1, 4, (canvas.count, 1, 1), generator=canvas.rng)
    width = canvas.uniform(0.04, 0.16, 1, 1)
    start = canvas.uniform(-0.75, 0.75, 1, 2)
    distance = torch.full((canvas.count, canvas.height, canvas.width), torch.inf)
    for piece in range(3):
        control = canvas.uniform(-1.2, 1.2, 2, 1, 2)
        end = canvas.uniform(-0.75, 0.75, 1, 2)
        points = [start, control[:, 0], control[:, 1], end]
        curve = sum((b * p for b, p in zip(bernstein, points, strict=True)), torch.zeros(()))
        nearest = _to_polyline(canvas, curve)
        distance = torch.where(piece < pieces, torch.minimum(distance, nearest), distance)
        start = end
    return canvas.compose(canvas.mask(distance - width))


def _to_polyline(canvas: _Canvas, points: Tensor) -> Tensor:
    nearest = torch.full((canvas.count, canvas.height, canvas.width), torch.inf)
    for a, b in zip(points.unbind(1), points[:, 1:].unbind(1), strict=False):
        dx, dy = (b - a)[:, :, None, None].unbind(1)
        x, y = canvas.x - a[:, 0, None, None], canvas.y - a[:, 1, None, None]
        t = ((x * dx + y * dy) / (dx**2 + dy**2).clamp(min=1e-9)).clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(x - t * dx, y - t * dy))
    return nearest


def _silhouettes(canvas: _Canvas) -> Tensor:
    """Unions of rounded bars, most of them mirrored: garments, bags, tools."""
    x = torch.where(canvas.chance(0.7), canvas.x.abs(), canvas.x)
    parts = torch.randint(1, 5, (canvas.count, 1, 1), generator=canvas.rng)
    distance = torch.full((canvas.count, canvas.height, canvas.width), torch.inf)
    for part in range(4):
        nearest = _to_bar(canvas, x, canvas.uniform(-0.5, 0.5, 2, 1, 1), longest=1.0)
        distance = torch.where(part < parts, torch.minimum(distance, nearest), distance)
    return canvas.compose(canvas.mask(distance))


def _to_bar(canvas: _Canvas, x: Tensor, centre: Tensor, *, longest: float) -> Tensor:
    """Signed distances to one turned, rounded rectangle in each picture."""
    angle = canvas.uniform(-0.5, 0.5, 1, 1) + (math.pi / 2) * canvas.chance(0.5)
    half = longest * canvas.uniform(0.2, 1, 2, 1, 1) * canvas.uniform(0.4, 1, 1, 1, 1)
    rounding = canvas.uniform(0, 1, 1, 1) * half.amin(1)
    dx, dy = x - centre[:, 0], canvas.y - centre[:, 1]
    u = (dx * angle.cos() + dy * angle.sin()).abs() - half[:, 0] + rounding
    v = (dy * angle.cos() - dx * angle.sin()).abs() - half[:, 1] + rounding
    outside = torch.hypot(u.clamp(min=0), v.clamp(min=0))
    return outside + torch.maximum(u, v).clamp(max=0) - rounding


def _blobs(canvas: _Canvas) -> Tensor:
    """Level sets of smooth fields, fading out towards the border in some pictures."""
    fade = canvas.uniform(0, 4, 1, 1) * canvas.chance(0.6)
    height = canvas.field(flattest=2.0, steepest=4.0) - fade * (canvas.x**2 + canvas.y**2 - 0.4)
    sharpness = canvas.uniform(0.1, 1.5, 1, 1)
    return canvas.compose(canvas.mask(-height / sharpness * canvas.pixel * 2))


def _leaves(canvas: _Canvas) -> Tensor:
    """Opaque bars and discs of many sizes, falling on each other."""
    image = (canvas.uniform(0, 1, 1, 1, 1) + canvas.paint()).clamp(0, 1)
    for size in torch.logspace(0, -0.8, 12).tolist():
        mask = canvas.mask(
            _to_bar(canvas, canvas.x, canvas.uniform(-1, 1, 2, 1, 1), longest=0.9 * size)
        )
        leaf = (canvas.uniform(0, 1, 1, 1, 1) + canvas.paint()).clamp(0, 1)
        image = torch.lerp(image, leaf, mask[:, None])
    return image


def _textures(canvas: _Canvas) -> Tensor:
    """Smooth fields and gratings of any contrast around any level."""
    angle, period = canvas.uniform(0, math.pi, 1, 1), canvas.uniform(0.2, 0.8, 1, 1)
    along = canvas.x * angle.cos() + canvas.y * angle.sin()
    bent = along + 0.1 * canvas.uniform(0, 1, 1, 1) * canvas.field(flattest=2.0)
    waves = torch.sin(2 * math.pi * bent / period)
    pattern = torch.where(canvas.chance(0.4), waves, canvas.field())
    level, contrast = canvas.uniform(0.1, 0.9, 1, 1), canvas.uniform(0.05, 0.5, 1, 1)
    image = (level + contrast * pattern)[:, None] + canvas.paint()
    return image.clamp(0, 1)


_KINDS: tuple[Callable[[_Canvas], Tensor], ...] = (
    _strokes,
    _silhouettes,
    _blobs,
    _leaves,
    _textures,
)
