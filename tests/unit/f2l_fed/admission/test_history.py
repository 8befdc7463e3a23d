"""The admission history: one statistic a site, whatever Byzantine sites send; durable; rebuilt."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2l_fed.admission import AdmittedRecords, History, extend_history, load_history, save_history
from f2l_fed.admission.features import extract_features
from f2l_fed.admission.history import Exclusion
from f2l_fed.admission.history_file import from_bytes, to_bytes
from f2l_fed.admission.robust_statistics import length_reference_of
from f2l_fed.admission.site_statistics import SiteStatistics
from f2l_fed.errors import AdmissionError
from f2l_fed.zoo.records import RELEASED
from tests.support.submissions import ANCHOR, remembered, submission

quick = settings(deadline=None, max_examples=60)
numbers = st.floats(-1e6, 1e6)


def statistics_of(values):
    statistics = SiteStatistics()
    for index, value in enumerate(values):
        statistics.put(f"s{index}", {"norm": torch.tensor([value])})
    return statistics


@quick
@given(
    honest=st.lists(st.floats(-3, 3), min_size=3, max_size=15),
    attacks=st.lists(numbers, min_size=1, max_size=14),
    batches=st.integers(1, 5),
)
def test_a_minority_can_not_drag_the_median_out_of_the_honest_range(honest, attacks, batches):
    attacks = attacks[: len(honest) - 1]
    statistics = statistics_of(honest)
    for batch in range(batches):
        for index, attack in enumerate(attacks):
            statistics.put(f"byzantine-{index}", {"norm": torch.tensor([attack * (batch + 1)])})
    median, spread, sites = statistics.everyone().reference("norm", 0.1)
    assert sites == len(honest) + len(attacks)
    margin = 1e-4
    assert min(honest) - margin <= median <= max(honest) + margin
    # More than half are honest, so the median deviation is at most that of the farthest of them.
    assert spread <= 1.4826 * (max(honest) - min(honest)) + 0.1 + margin


def test_a_site_that_sends_often_has_one_statistic():
    statistics = statistics_of([1.0, 2.0, 3.0])
    for _ in range(100):
        statistics.put("s2", {"norm": torch.tensor([50.0])})
    assert statistics.everyone().reference("norm", 0.1)[:1] == (2.0,)
    assert len(statistics.sites) == 3


def test_a_figure_that_a_site_lacks_is_not_counted():
    statistics = statistics_of([1.0, 2.0])
    statistics.put("new", {"spread": torch.tensor([7.0])})
    assert statistics.everyone().reference("norm", 0.1).sites == 2
    assert statistics.everyone().reference("spread", 0.1).sites == 1
    assert statistics.everyone().reference("mood", 0.1).sites == 0
    assert set(statistics.of("new")) == {"spread"}


def test_a_history_survives_its_file(screen, tmp_path):
    history = remembered(screen, 4)
    save_history(tmp_path / "history", history)
    again = load_history(tmp_path / "history")
    assert to_bytes(again) == to_bytes(history)
    assert again.signature_ids == history.signature_ids
    one = submission(4)
    assert screen.judge(one, again).verdict == screen.judge(one, history).verdict
    assert load_history(tmp_path / "nothing").signature_ids == ()


def test_a_history_that_another_version_wrote_is_told(screen):
    data = to_bytes(remembered(screen, 2))
    old = data.replace(b'\\"format\\": 3', b'\\"format\\": 2')
    assert old != data
    with pytest.raises(AdmissionError, match="got format 2"):
        from_bytes(old)


@pytest.mark.parametrize("cut", [0, 5, 200, -1])
def test_a_damaged_file_is_named(screen, tmp_path, cut):
    path = tmp_path / "history"
    path.write_bytes(to_bytes(remembered(screen, 2))[:cut])
    with pytest.raises(AdmissionError, match="can't be read") as error:
        load_history(path)
    assert error.value.where == str(path)


def test_a_forgotten_site_leaves_nothing_behind(screen):
    history = remembered(screen, 4)
    without = history.without("site-02")
    assert {one.site for one in without.unreviewed} == {"site-00", "site-01", "site-03"}
    assert b"site-02" not in to_bytes(without)
    assert "site-03" in {one.site for one in without.signature_ids}
    assert len(without.signatures) == len(without.signature_ids)


def test_only_the_networks_of_a_site_s_last_rounds_are_remembered(screen):
    history = remembered(screen, 3)
    for number in range(2, 6):
        history = screen.judge(submission(1, number), history).history
    recent = history.of_last_rounds(2)
    sites = {one.site for one in recent.signature_ids}
    rounds = {site: {o.round for o in recent.signature_ids if o.site == site} for site in sites}
    assert rounds == {"site-00": {1}, "site-01": {4, 5}, "site-02": {1}}
    assert len(recent.signatures) == len(recent.signature_ids)


def test_the_same_submission_twice_is_remembered_once(screen):
    history = remembered(screen, 3)
    again = screen.judge(submission(1), history).history
    assert sorted(again.signature_ids) == sorted(history.signature_ids)
    assert len(again.directions) == len(history.directions)


def test_a_late_submission_of_an_earlier_round_replaces_no_newer_statistics(screen):
    history = remembered(screen, 3)
    newer = screen.judge(submission(1, 4), history).history
    late = screen.judge(submission(1, 2), newer)
    assert late.verdict.admitted, late.verdict.reason
    before, after = newer.statistics_on("first"), late.history.statistics_on("first")
    for name, value in before.of("site-01").items():
        assert torch.equal(after.of("site-01")[name], value)
    assert late.history.direction_ids == newer.direction_ids
    assert len(late.history.signature_ids) > len(newer.signature_ids)
    # The way of a run that is resumed: the parts of both, in the order in which they came.
    resumed = newer.copy()
    resumed.join(late.part)
    assert to_bytes(resumed) == to_bytes(late.history)


def test_a_history_built_from_first_rounds_in_a_zoo_judges_alike(screen):
    rows = [
        AdmittedRecords(
            site=one.site,
            round=one.round,
            parent=one.parent,
            weights=one.weights,
            probes=one.probes,
            metrics=[{} for _ in one.weights],
        )
        for one in map(submission, range(9))
    ]
    built, grown = extend_history(rows, screen.sketch, ANCHOR), remembered(screen, 9)
    assert built.signature_ids == grown.signature_ids
    torch.testing.assert_close(built.signatures, grown.signatures)
    found, known = built.statistics_on("first"), grown.statistics_on("first")
    assert found.everyone().reference("norm", 0.1) == known.everyone().reference("norm", 0.1)
    later = extend_history(
        [AdmittedRecords(site="a", round=2, parent="00001", weights=rows[0].weights,
                  probes=rows[0].probes, metrics=[{"update_norm": 1.0}] * 2)],
        screen.sketch, ANCHOR,
    )  # fmt: skip
    assert later.statistics_on("later").everyone().reference("norm", 0.1).median == 0.0
    assert later.directions.shape[0] == 0


def test_an_older_submission_leaves_the_exclusion_of_a_newer_one(screen):
    newer = screen.judge(submission(1, 3, parent="00002"), remembered(screen, 4)).history
    excluded = newer.copy()
    excluded.exclude("later", {"site-01": Exclusion(3, "why")})
    for older in (submission(1, 2, parent="00001"), submission(1, 1)):
        assert (
            excluded.with_admitted(extract_features(older, screen.sketch)).excluded
            == excluded.excluded
        )
    newest = extract_features(submission(1, 4, parent="00003"), screen.sketch)
    assert not excluded.with_admitted(newest).excluded


def test_a_history_can_be_put_together_from_the_parts_of_its_submissions(screen):
    grown, built = History(), History()
    later = [submission(n, 2, parent="00001") for n in range(20, 23)]
    for one in [*map(submission, range(9)), *later]:
        judged = screen.judge(one, grown)
        judged.remember(grown)
        built.join(from_bytes(to_bytes(judged.part)))
    assert grown.statistics_on("later").parents == ("00001",) * 3
    assert to_bytes(built) == to_bytes(grown)


def test_a_part_without_statistics_removes_them(screen):
    grown, one, part = remembered(screen, 4), submission(2), History()
    part.admit(extract_features(one, screen.sketch), counted=False)
    grown.join(part)
    assert one.site not in grown.statistics_on(one.id.kind).sites
    assert one.id in grown.signature_ids


def test_a_submission_released_from_quarantine_does_not_enter_the_statistics(screen):
    one = submission(0)
    released = AdmittedRecords(
        site=one.site,
        round=one.round,
        parent=one.parent,
        weights=one.weights,
        probes=one.probes,
        metrics=[{RELEASED: 1.0} for _ in one.weights],
    )
    history = extend_history([released], screen.sketch, ANCHOR, remembered(screen, 4))
    assert history.signature_ids.count(one.id) == len(one.weights)
    assert one.site not in history.statistics_on(one.id.kind).sites


@quick
@given(
    honest=st.lists(st.floats(0.1, 10), min_size=3, max_size=15),
    attacks=st.lists(st.floats(1, 1e12), min_size=1, max_size=14),
)
def test_however_long_attacks_are_the_spread_of_lengths_is_bounded_by_an_honest_one(
    honest, attacks
):
    attacks = [max(honest) * attack for attack in attacks[: len(honest) - 1]]
    reference = length_reference_of([*honest, *attacks], floor=0.01)
    assert min(honest) <= reference.median <= max(honest)
    assert reference.spread <= 1.4826 * reference.median + 1e-9


def test_neither_long_nor_short_attacks_widen_the_spread_of_lengths_as_they_would_both_ways():
    tight = [0.9 + 0.2 * n / 27 for n in range(28)]
    assert length_reference_of([*tight, *[0.36] * 12], 0.01).spread < 0.2
    # Honest lengths have a long tail below.
    skewed = [0.2 + 0.8 * n / 27 for n in range(28)]
    lied = [*skewed, *[10.0] * 12]
    median, spread, _ = length_reference_of(lied, 0.01)
    both_ways = sorted(abs(length - median) for length in lied)[len(lied) // 2] * 1.4826
    assert spread < 0.8 * both_ways


def test_an_exclusion_of_older_records_does_not_replace_one_of_newer_ones(screen):
    history = remembered(screen, 3)
    history.exclude("later", {"site-01": Exclusion(4, "short")})
    history.exclude("first", {"site-01": Exclusion(1, "long"), "site-02": Exclusion(1, "long")})
    assert history.excluded == {"site-01": Exclusion(4, "short"), "site-02": Exclusion(1, "long")}
    assert set(history.statistics_on("first").sites) == {"site-00"}
