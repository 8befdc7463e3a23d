"""The calibration of a network as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SIDE, _EDGE = 320, 44


def calibration_svg(parts: Sequence[Mapping[str, float]]) -> str:
    """Draws a reliability diagram.

    Args:
        parts: ``predictions``, ``probability`` and ``accuracy`` of each range of probabilities.

    Returns:
        SVG: a dot for each range, its area by the number of predictions, and the diagonal on which
        a calibrated network lies.
    """
    most = max((part["predictions"] for part in parts), default=1)

    def x(share: float) -> float:
        return _EDGE + share * _SIDE

    def y(share: float) -> float:
        return _EDGE / 2 + (1 - share) * _SIDE

    dots = "".join(
        f'<circle cx="{x(part["probability"]):.1f}" cy="{y(part["accuracy"]):.1f}" '
        f'r="{3 + 11 * (part["predictions"] / most) ** 0.5:.1f}"/>'
        for part in parts
    )
    marks = "".join(
        f'<text x="{x(share):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{share:g}</text>'
        f'<text x="{x(0) - 6:.1f}" y="{y(share) + 4:.1f}" text-anchor="end">{share:g}</text>'
        for share in (0, 0.5, 1)
    )
    width, height = _SIDE + 2 * _EDGE, _SIDE + 2 * _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<path d="M{x(0)} {y(1)}V{y(0)}H{x(1)}" fill="none" stroke="#5c6570"/>'
        f'<path d="M{x(0)} {y(0)}L{x(1)} {y(1)}" stroke="#9aa4af" stroke-dasharray="4"/>'
        f'<g fill="#1f6feb" fill-opacity="0.7">{dots}</g><g fill="#1a1d21">{marks}'
        f'<text x="{x(0.5)}" y="{y(0) + 36}" text-anchor="middle">probability</text>'
        f'<text x="12" y="{y(0.5)}" text-anchor="middle" '
        f'transform="rotate(-90 12 {y(0.5)})">accuracy</text></g></svg>\n'
    )
