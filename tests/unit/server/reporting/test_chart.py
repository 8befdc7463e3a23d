"""A chart draws all its lines, with labels that can be read."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.reporting.chart import Line, line_chart, spread_labels

STEPS = (0, 1, 5, 20)


def line(label="generated", values=(0.7, 0.75, 0.76, 0.78), half=0.02, **more):
    return Line(label=label, values=values, half_widths=(half,) * len(values), **more)


def drawn(*lines, steps=STEPS):
    return ElementTree.fromstring(line_chart(lines, steps, title="accuracy"))


def of_class(svg, name):
    return [part for part in svg.iter() if name in part.get("class", "").split()]


def heights(svg, name="label"):
    return sorted(float(text.get("y")) for text in of_class(svg, name))


def test_every_line_has_points_a_band_and_a_label():
    svg = drawn(line(lead=True), line("random", (0.2, 0.2, 0.3, 0.6)))
    assert len(of_class(svg, "line")) == len(of_class(svg, "band")) == 2
    assert len(list(svg.iter("circle"))) == 2 * len(STEPS)
    assert [text.text for text in of_class(svg, "label")] == ["78.0% generated", "60.0% random"]


def test_higher_accuracy_is_drawn_higher():
    svg = drawn(line(values=(0.2, 0.4, 0.6, 0.8)))
    ys = [float(circle.get("cy")) for circle in svg.iter("circle")]
    assert ys == sorted(ys, reverse=True)


def test_the_first_steps_get_more_room_than_their_share():
    xs = [float(circle.get("cx")) for circle in drawn(line()).iter("circle")]
    assert (xs[1] - xs[0]) / (xs[-1] - xs[0]) > 2 * 1 / 20


def test_the_leading_line_lies_on_top():
    svg = drawn(line(lead=True), line("random"))
    assert "lead" in of_class(svg, "line")[-1].get("class")


def test_labels_of_lines_that_end_together_do_not_overlap():
    svg = drawn(*(line(f"arm {i}", (0.5, 0.5, 0.5, 0.8 + i / 1000)) for i in range(9)))
    ys = heights(svg)
    assert min(b - a for a, b in pairwise(ys)) >= 16


def test_a_missing_value_is_left_out():
    svg = drawn(line(values=(0.7, math.nan, 0.76, 0.78)))
    assert len(list(svg.iter("circle"))) == 3
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")


def test_a_line_without_intervals_has_no_band():
    assert not of_class(drawn(line(half=math.nan)), "band")


def test_bands_stay_between_zero_and_one():
    svg = drawn(line(values=(0.02, 0.5, 0.9, 0.99), half=0.2))
    (band,) = of_class(svg, "band")
    ys = [float(corner.split(",")[1]) for corner in band.get("points").split()]
    grid = [float(part.get("y1")) for part in of_class(svg, "grid")]
    assert min(grid) <= min(ys)
    assert max(ys) <= max(grid)


def test_names_are_escaped_and_long_ones_cut():
    svg = line_chart([line("<script>alert(1)</script>")], STEPS, title="a < b")
    assert "<script" not in svg
    assert [text.text for text in of_class(ElementTree.fromstring(svg), "label")] == [
        "78.0% <script>aler…"
    ]


def test_tick_labels_that_would_touch_are_left_out():
    svg = drawn(line(values=(0.5, 0.6, 0.7)), steps=(0, 99, 100))
    assert [text.text for text in of_class(svg, "middle")] == ["0", "99", "local steps"]


def test_one_measurement_is_enough():
    assert len(list(drawn(line(values=(0.5,)), steps=(0,)).iter("circle"))) == 1


@pytest.mark.parametrize("lines", [[], [line(values=(math.nan,) * 4)]])
def test_nothing_to_draw_is_refused(lines):
    with pytest.raises(ValueError, match="at least one line"):
        line_chart(lines, STEPS, title="empty")


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_spread_labels_keep_order_distance_and_bounds(ideal):
    places = spread_labels(ideal, gap=17, low=0, high=300)
    ranked = [places[i] for i in sorted(range(len(ideal)), key=lambda i: ideal[i])]
    assert all(b - a > 16.999 for a, b in pairwise(ranked))
    assert all(-1e-6 <= place <= 300 + 1e-6 for place in places)


@given(st.lists(st.integers(0, 14), min_size=1, max_size=10, unique=True))
def test_labels_with_room_are_not_moved(slots):
    ideal = [20.0 * slot for slot in slots]
    assert spread_labels(ideal, gap=17, low=0, high=300) == pytest.approx(ideal)
