"""The report shows the deciding number and claims no more than was measured."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser

import pytest

from f2l_fed.errors import DataError, UsageError
from server.reporting.comparison import read_comparisons
from server.reporting.report import render_report, write_report

STEPS = [0, 1, 20, 50]


def arm(*accuracy, ci=0.01):
    return {"accuracy": list(accuracy), "ci95": [ci] * len(accuracy)}


@pytest.fixture
def result():
    arms = {
        "random": arm(0.20, 0.21, 0.50, 0.70),
        "prior": arm(0.60, 0.65, 0.70, 0.74),
        "generated": arm(0.68, 0.72, 0.75, 0.76),
    }
    reached = {"random": 50, "prior": 20, "generated": 1}
    timed = {"target": {"arm": "random", "steps": 50, "accuracy": 0.70}, "arms": reached}
    return {
        "schema": 1,
        "seed": 41,
        "scenario": "few-shot",
        "data": ["digits"],
        "target": {"name": "cnn", "parameters": 1973, "layout": "ab12"},
        "rounds": [
            {
                "round": 1,
                "release": "00001",
                "sites": 10,
                "accepted": 9,
                "rejected": 1,
                "seconds": 95.0,
                "bytes_up": 4_000_000,
                "bytes_down": 6_000_000,
                "accuracy_before": 0.2,
                "accuracy_after": 0.81,
            }
        ],
        "verdicts": [
            {
                "round": 1,
                "release": "00001",
                "promoted": False,
                "reasons": ["dispersion 0.5 is below 0.7"],
                "figures": {"dispersion": 0.5},
            }
        ],
        "held_out": {
            "seen": {"steps": STEPS, "arms": arms},
            "unseen": {"steps": STEPS, "arms": copy.deepcopy(arms)},
        },
        "steps_to_target": {"seen": timed, "unseen": copy.deepcopy(timed)},
        "data_notes": ["Training sites share some examples."],
        "settings": {"recipe": {"lr": 0.03}},
        "machine": {"cpus": 2, "platform": "Linux", "torch": "2.13.0"},
        "wall_seconds": 123.0,
    }


class _Page(HTMLParser):
    """The tested parts of a page: text, headline, tags with attributes, bold cells."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.headline, self.best, self._open = [], [], "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        inside = [tag for tag, _ in self._open]
        if "style" in inside:
            return
        self.texts.append(data)
        self.headline += data if "h1" in inside else ""
        if self._open and self._open[-1][0] == "td" and self._open[-1][1].get("class") == "best":
            self.best.append(data.strip())

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def read(result):
    return _Page(render_report(result))


def test_the_number_is_in_the_headline(result):
    page = read(result)
    assert "an accuracy of 68.0% before any fine-tuning, a random one 20.0%" in page.headline
    assert "After one step it is 72.0% against 21.0%." in page.text
    assert "After 1 step it reaches the 70.0% of a random start after 50 steps" in page.text
    assert "50 times fewer" in page.text


def test_a_worse_start_is_called_worse(result):
    result["held_out"]["seen"]["arms"]["generated"] = arm(0.1, 0.1, 0.2, 0.3)
    result["steps_to_target"]["seen"]["arms"]["generated"] = None
    page = read(result)
    assert "worse than a random one" in page.headline
    assert "It does not reach the 70.0%" in page.text


def test_a_difference_within_the_uncertainty_is_no_gain(result):
    result["held_out"]["seen"]["arms"]["generated"] = arm(0.25, 0.3, 0.6, 0.7, ci=0.2)
    assert read(result).headline.startswith("No clear gain")


def test_without_intervals_no_gain_is_claimed(result):
    for row in result["held_out"]["seen"]["arms"].values():
        del row["ci95"]
    assert "within unknown uncertainty" in read(result).headline


@pytest.mark.parametrize(
    ("random", "generated", "words"),
    [
        (50, 0, "Without any step it reaches the 70.0%"),
        (50, 6, "8.3 times fewer"),
        (50, 40, "10 fewer"),
        (50, 50, "none saved"),
        (20, 5, "that start first reached after 20: 4 times fewer"),
    ],
)
def test_saved_steps_are_not_overstated(result, random, generated, words):
    result["steps_to_target"]["seen"]["arms"] = {"random": random, "generated": generated}
    assert words in read(result).text


def test_a_simple_alternative_that_wins_is_named(result):
    result["held_out"]["seen"]["arms"]["prior"] = arm(0.60, 0.80, 0.70, 0.762)
    text = read(result).text
    assert "A simpler start wins here." in text
    assert (
        "is ahead after 1 and 50 steps, by up to 8.0 points; beyond the uncertainty after 1 s"
        in (text)
    )


def test_a_lead_within_the_uncertainty_is_not_called_a_win(result):
    result["held_out"]["seen"]["arms"]["prior"] = arm(0.60, 0.65, 0.70, 0.762)
    text = read(result).text
    assert "A simpler start wins" not in text
    assert (
        "Ahead, but within the uncertainty: linear prior after 50 steps (by up to 0.2 points)."
        in text
    )


def test_a_lead_that_rounds_to_zero_is_called_less_than_a_tenth(result):
    result["held_out"]["seen"]["arms"]["prior"] = arm(0.60, 0.65, 0.70, 0.7601)
    assert "linear prior after 50 steps (by less than 0.1 points)" in read(result).text


def test_where_nothing_is_ahead_the_page_says_so(result):
    assert (
        "No other start was above the generated one at any measured number of steps."
        in read(result).text
    )


def test_the_best_of_each_column_is_bold(result):
    result["held_out"]["unseen"] = None
    result["held_out"]["seen"]["arms"]["prior"] = arm(0.60, 0.65, 0.70, 0.80)
    assert read(result).best == ["80.0", "68.0", "72.0", "75.0"]


def test_rounds_gate_and_provenance_are_shown(result):
    text = read(result).text
    for shown in (
        "1 min 35 s",
        "a site sent and received 1.0 MB per round",
        "rejected",
        "dispersion 0.5 is below 0.7",
        "Training sites share some examples.",
        "recipe.lr 0.03",
        "seed 41",
        "they took part in no round",
    ):
        assert shown in text


def test_one_chart_for_each_kind_of_site(result):
    assert [tag for tag, _ in read(result).tags].count("svg") == 2
    result["held_out"]["unseen"] = None
    page = read(result)
    assert [tag for tag, _ in page.tags].count("svg") == 1
    assert "Held-out sites with unseen classes were not measured." in page.text


def test_a_start_has_the_same_colour_in_both_charts(result):
    arms = result["held_out"]["unseen"]["arms"]
    result["held_out"]["unseen"]["arms"] = {"soup": arm(0.3, 0.3, 0.4, 0.5), **arms}
    tones = re.findall(r'class="line (tone-\d)"><title>linear prior', render_report(result))
    assert len(tones) == 2
    assert len(set(tones)) == 1


def test_the_page_needs_nothing_from_outside(result):
    tags = read(result).tags
    assert not {"script", "link", "img", "iframe", "form"} & {tag for tag, _ in tags}
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags)
    policy = next(a["content"] for t, a in tags if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_text_is_escaped(result):
    evil = "<script>alert('x')</script>"
    arms = result["held_out"]["seen"]["arms"]
    result |= {"scenario": evil, "data": [evil], "data_notes": [evil], "machine": {evil: evil}}
    result["target"]["name"] = result["rounds"][0]["release"] = evil
    result["verdicts"][0] |= {"reasons": [evil], "figures": {evil: 1.0}, "left_out": {evil: evil}}
    arms[evil] = arms["prior"]
    page = render_report(result)
    assert "<script" not in page
    assert page.count("&lt;script") >= 10


@pytest.mark.parametrize(
    "key",
    [
        "schema",
        "seed",
        "scenario",
        "data",
        "target",
        "rounds",
        "verdicts",
        "steps_to_target",
        "data_notes",
        "settings",
        "machine",
        "wall_seconds",
    ],
)
def test_any_other_part_may_be_missing(result, key):
    del result[key]
    assert "68.0%" in read(result).headline


@pytest.mark.parametrize("held_out", [None, {}, {"seen": None, "unseen": None}])
def test_without_measurements_there_is_no_number(result, held_out):
    result["held_out"] = held_out
    assert "there is no number to decide on" in read(result).headline


def test_without_a_random_start_there_is_no_comparison(result):
    del result["held_out"]["seen"]["arms"]["random"]
    assert "was not compared with a random one" in read(result).headline


def test_an_empty_result_is_a_page():
    assert "no number to decide on" in read({}).headline


def test_values_that_are_not_numbers_become_dashes(result):
    result["rounds"][0] |= {"accuracy_before": None, "seconds": None, "bytes_up": None}
    result["held_out"]["seen"]["arms"]["prior"]["accuracy"][1] = None
    page = render_report(result)
    assert "nan" not in page.split("</style>")[1]
    assert ">None<" not in page
    assert page.count("<td>–</td>") >= 3


def test_lists_that_do_not_fit_the_steps_are_refused(result):
    result["held_out"]["seen"]["arms"]["prior"]["accuracy"].pop()
    with pytest.raises(DataError, match=r"list of numbers") as caught:
        render_report(result)
    assert caught.value.where == "held_out.seen.arms.prior.accuracy"


def test_another_schema_is_refused(result):
    with pytest.raises(DataError, match="schema"):
        render_report({**result, "schema": 2})


def test_a_written_report_replaces_the_old_one(result, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(result, path)
    assert path.read_text(encoding="utf-8") == render_report(result)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(result, tmp_path):
    with pytest.raises(UsageError, match="can't be written"):
        write_report(result, tmp_path / "missing" / "report.html")


def test_the_worth_of_probabilities_is_said_in_words(result):
    assert "surest" not in read(result).text
    own = {"loss": 0.31, "calibration_error": 0.023, "accuracy_at_80": 0.954}
    result["held_out"]["seen"]["confidence"] = {"generated": own}
    told = read(result).text
    assert "differs by 2.3% from how often it is right" in told
    assert "surest of, 95.4% are right" in told


def test_what_a_site_reaches_alone_is_said(result):
    assert "trains alone" not in read(result).text
    result["held_out"]["seen"]["arms"]["local"] = arm(0.77, 0.77, 0.77, 0.77)
    assert "trains alone, to the end, reaches 77.0%" in read(result).text


def test_a_federation_that_changes_tells_its_sites_apart_and_what_changes(result):
    row = {"round": 1, "release": "00001", "accuracy": 0.9, "weighted": 0.917}
    result["training_sites"] = [{**row, "never": 0.91, "changed": 0.8, "joined": None}]
    told = re.search(r"<h2>Training sites</h2>.*?</table>", render_report(result), re.S)
    assert told is not None
    assert "never changed" not in told[0]
    result["changes"] = [{"round": 1, "site": "site-004", "what": "left"}]
    told = re.search(r"<h2>Training sites</h2>.*?</table>", render_report(result), re.S)
    assert told is not None
    assert re.findall(r"<td>(.*?)</td>", told[0]) == ["90.0", "91.7", "91.0", "80.0", "–"]
    assert '<td class="text">site-004 left</td>' in told[0]


def test_training_sites_with_the_baselines_for_shared_labels_have_a_table(result):
    assert "Training sites beside baselines</h2>" not in render_report(result)
    cost = {"bytes_up": 10_792, "bytes_down": 10_792, "steps": 39.9, "own_steps": 199.5}
    row = {"weighted": [0.915, 0.922], "plain": [0.901, 0.913], "cost": cost}
    result["personalised"] = {"rounds": [1, 3], "methods": {"fedavg_epochs": row}}
    result["training_sites"] = [
        {"round": 1, "release": "00001", "accuracy": 0.9, "weighted": 0.917},
        {"round": 3, "release": "00003", "accuracy": 0.918, "weighted": 0.923},
    ]
    page = render_report(result)
    told = re.search(r"Training sites beside baselines</h2>.*?</table>", page, re.S)
    assert told is not None
    cells = re.findall(r"<td>(.*?)</td>", told[0])
    assert cells[:6] == ["91.7", "92.3", "91.8", "–", "–", "–"]
    assert cells[6:] == ["91.5", "92.2", "91.3", "0.011", "40", "200"]
    assert "FedAvg + 5" in told[0]


def test_an_interval_over_few_sites_is_not_shown():
    result = {
        "held_out_sites": {"seen": 2},
        "held_out": {
            "seen": {"steps": [0], "arms": {"generated": {"accuracy": [0.5], "ci95": [2.608]}}}
        },
    }
    (comparison,) = read_comparisons(result).values()
    assert math.isnan(comparison.arms[0].ci95[0])
    result["held_out_sites"]["seen"] = 5
    (comparison,) = read_comparisons(result).values()
    assert comparison.arms[0].ci95 == (2.608,)
