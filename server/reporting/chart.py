"""Line charts with uncertainty bands, as inline SVG without scripts.

The page sets the colours: each line has the class ``line`` and one of ``tone-0`` to ``tone-7``,
the leading line ``lead`` instead of a tone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

__all__ = ["TONES", "Line", "line_chart", "spread_labels"]

TONES = 8
_WIDTH, _HEIGHT = 500.0, 350.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 326.0, 16.0, 304.0
_LABEL_GAP, _LABEL_CHARS, _TICK_GAP = 17.0, 13, 26.0
_MARGIN = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a chart.

    Args:
        label: Text at its end.
        values: Fractions, 0 to 1, one for each x; NaN leaves a gap.
        half_widths: Half width of the band around each value; NaN for none.
        tone: Colour, 0 to 7.
        lead: Whether it is the chart's leading line.
    """

    label: str
    values: tuple[float, ...]
    half_widths: tuple[float, ...]
    tone: int = 0
    lead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The map from steps and fractions to coordinates."""

    x_max: float
    low: float
    high: float

    def x(self, steps: float) -> float:
        # Square root: the first steps, which matter most, get room, and zero is on the axis.
        return _LEFT + _MARGIN + (_RIGHT - _LEFT - 2 * _MARGIN) * math.sqrt(steps / self.x_max)

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self.low) / (self.high - self.low)


def line_chart(lines: Sequence[Line], steps: Sequence[int], *, title: str) -> Markup:
    """Draws accuracies over local steps, the leading line on top of the others.

    Args:
        lines: The lines; one without any value is left out.
        steps: x of each value, increasing, 0 or more.
        title: The chart's title for screen readers.

    Returns:
        An ``svg`` element, every text escaped.

    Raises:
        ValueError: If no line has a value.
    """
    drawn = [line for line in lines if any(map(math.isfinite, line.values))]
    if not drawn or not steps:
        raise ValueError("a chart needs at least one line with a value")
    frame = _frame(drawn, steps)
    svg = ElementTree.Element(
        "svg",
        {"viewBox": f"0 0 {_WIDTH:g} {_HEIGHT:g}", "role": "img", "class": "chart"},
    )
    ElementTree.SubElement(svg, "title").text = title
    _draw_axes(svg, frame, steps)
    back_to_front = sorted(drawn, key=lambda line: line.lead)
    for line in back_to_front:
        _draw_band(svg, frame, line, steps)
    for line in back_to_front:
        _draw_line(svg, frame, line, steps)
    _draw_labels(svg, frame, drawn, steps)
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def spread_labels(
    ideal: Sequence[float], *, gap: float, low: float, high: float
) -> tuple[float, ...]:
    """Moves labels apart by the least squares, in their order.

    Args:
        ideal: The best place of each label.
        gap: Minimum distance of two labels; smaller if ``low`` to ``high`` is too short.
        low: Lower bound of all labels.
        high: Upper bound of all labels.

    >>> spread_labels([50.0, 52.0, 10.0], gap=10.0, low=0.0, high=100.0)
    (46.0, 56.0, 10.0)
    >>> spread_labels([99.0, 98.0], gap=10.0, low=0.0, high=100.0)
    (100.0, 90.0)
    """
    order = sorted(range(len(ideal)), key=lambda i: ideal[i])
    gap = min(gap, (high - low) / max(1, len(ideal) - 1))
    # Least squares under minimum distances: after taking the due distance off each position, what
    # is left must not decrease, and neighbours that would are pooled at their mean.
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, size = ideal[index] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), size + count
        pools.append((mean, size))
    eased = [mean for mean, size in pools for _ in range(size)]
    ceiling = high - gap * (len(ideal) - 1)
    places = [0.0] * len(ideal)
    for rank, index in enumerate(order):
        places[index] = min(max(eased[rank], low), ceiling) + rank * gap
    return tuple(places)


def _frame(lines: Sequence[Line], steps: Sequence[int]) -> _Frame:
    reach = [
        value + side * (half if math.isfinite(half) else 0.0)
        for line in lines
        for value, half in zip(line.values, line.half_widths, strict=True)
        if math.isfinite(value)
        for side in (-1, 1)
    ]
    low = max(0.0, math.floor(min(reach) * 10) / 10)
    high = min(1.0, math.ceil(max(reach) * 10) / 10)
    return _Frame(x_max=max(1, steps[-1]), low=min(low, 0.9), high=max(high, low + 0.1))


def _draw_axes(svg: ElementTree.Element, frame: _Frame, steps: Sequence[int]) -> None:
    stride = 2 if frame.high - frame.low > 0.65 else 1
    for tenth in range(round(frame.low * 10), round(frame.high * 10) + 1, stride):
        y = f"{frame.y(tenth / 10):.1f}"
        ElementTree.SubElement(
            svg, "line", {"class": "grid", "x1": f"{_LEFT}", "x2": f"{_RIGHT}", "y1": y, "y2": y}
        )
        _text(svg, f"{tenth * 10}%", _LEFT - 8, float(y) + 4.5, "tick end")
    last = -math.inf
    for n in steps:
        x = frame.x(n)
        if x - last >= _TICK_GAP:
            _text(svg, f"{n}", x, _BOTTOM + 20, "tick middle")
            last = x
    _text(svg, "local steps", (_LEFT + _RIGHT) / 2, _BOTTOM + 42, "tick middle")


def _draw_band(svg: ElementTree.Element, frame: _Frame, line: Line, steps: Sequence[int]) -> None:
    known = [
        (frame.x(n), max(0.0, value - half), min(1.0, value + half))
        for n, value, half in zip(steps, line.values, line.half_widths, strict=True)
        if math.isfinite(value) and math.isfinite(half)
    ]
    if len(known) > 1:
        edge = [(x, top) for x, _, top in known] + [(x, low) for x, low, _ in reversed(known)]
        corners = " ".join(f"{x:.1f},{frame.y(value):.1f}" for x, value in edge)
        ElementTree.SubElement(svg, "polygon", {"class": f"band {_tone(line)}", "points": corners})


def _draw_line(svg: ElementTree.Element, frame: _Frame, line: Line, steps: Sequence[int]) -> None:
    points = _points(frame, line, steps)
    group = ElementTree.SubElement(svg, "g", {"class": f"line {_tone(line)}"})
    ElementTree.SubElement(group, "title").text = ", ".join(
        [line.label]
        + [
            f"{n} steps {value:.1%}"
            for n, value in zip(steps, line.values, strict=True)
            if math.isfinite(value)
        ]
    )
    ElementTree.SubElement(
        group, "polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)}
    )
    for x, y in points:
        ElementTree.SubElement(
            group,
            "circle",
            {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "4" if line.lead else "2.6"},
        )


def _draw_labels(
    svg: ElementTree.Element, frame: _Frame, lines: Sequence[Line], steps: Sequence[int]
) -> None:
    ends = [_points(frame, line, steps)[-1] for line in lines]
    places = spread_labels([y for _, y in ends], gap=_LABEL_GAP, low=_TOP + 4, high=_BOTTOM - 4)
    for line, (x, y), place in zip(lines, ends, places, strict=True):
        ElementTree.SubElement(
            svg,
            "polyline",
            {
                "class": f"leader {_tone(line)}",
                "points": f"{x + 6:.1f},{y:.1f} {_RIGHT + 6:.1f},{place:.1f} "
                f"{_RIGHT + 14:.1f},{place:.1f}",
            },
        )
        name = line.label
        if len(name) > _LABEL_CHARS:
            name = name[: _LABEL_CHARS - 1] + "…"
        value = next(v for v in reversed(line.values) if math.isfinite(v))
        _text(
            svg,
            f"{value:.1%} {name}",
            _RIGHT + 18,
            place + 4.5,
            "label lead" if line.lead else "label",
        )


def _points(frame: _Frame, line: Line, steps: Sequence[int]) -> list[tuple[float, float]]:
    return [
        (frame.x(n), frame.y(value))
        for n, value in zip(steps, line.values, strict=True)
        if math.isfinite(value)
    ]


def _tone(line: Line) -> str:
    return "lead" if line.lead else f"tone-{line.tone % TONES}"


def _text(svg: ElementTree.Element, text: str, x: float, y: float, style: str) -> None:
    ElementTree.SubElement(
        svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": style}
    ).text = text
