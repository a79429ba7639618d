"""Blocks of requests are compared with a baseline; unchanged traffic raises no alarm, changed traffic does."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from router.decision import NearKinds, Reason
from router.drift.block import MAX_CATEGORIES, OTHER, Block
from router.drift.comparison import chi_squared_tail, compare_counts
from router.drift.settings import DriftSettings
from router.drift.signals import SIGNALS, categories_of
from router.drift.traffic_watch import TrafficWatch
from router.errors import ConfigError
from tests.router.drift.decisions import decision

MIX = {"greeting": 0.5, "code": 0.3, "mathematics": 0.2}
DAY = 86_400.0
SMALL = DriftSettings(block_s=0, block_requests=100, baseline_blocks=2)


def drawn(rng: np.random.Generator, n: int, shares: dict[str, float]) -> Counter[str]:
    return Counter(dict(zip(shares, map(int, rng.multinomial(n, list(shares.values()))), strict=True)))


def block_of(rng: np.random.Generator, n: int, shares: dict[str, float]) -> Block:
    """Return a block all of whose signals are independent draws of one mix."""
    return Block(0.0, DAY, n, {signal: drawn(rng, n, shares) for signal in SIGNALS})


def test_a_decision_has_a_category_in_each_signal_in_which_it_has_a_value() -> None:
    assert categories_of(decision(kind="code", risks=(0.37, 0.1), gain=-0.25)) == {
        "judged": "judged",
        "kind": "code",
        "language": "en",
        "input_tokens": "2^6",
        "leverage": "2^-6",
        "weak_risk": "0.3",
        "gain": "-0.3",
    }
    unjudged = decision(difficulty=None, leverage=None, gain=None, kinds=NearKinds((), known=False))
    assert categories_of(unjudged).keys() == {"judged", "language", "input_tokens", "weak_risk"}


@pytest.mark.parametrize(
    ("changes", "category"),
    [
        ({"abstained": True}, "abstained"),
        ({"difficulty": None}, "not_judged"),
        ({"reason": Reason.FAILED_OPEN}, "failed_open"),
    ],
)
def test_what_kept_a_prompt_from_being_judged_is_a_category(changes: dict[str, object], category: str) -> None:
    assert categories_of(decision(**changes))["judged"] == category  # type: ignore[arg-type]


def test_the_distance_is_the_share_that_changed_its_category() -> None:
    compared = compare_counts({"a": 700, "b": 300}, {"a": 500, "b": 500})
    assert compared.distance == pytest.approx(0.2)
    assert compared.p_value < 1e-10
    assert compared.moved == ("a", 0.7, 0.5) or compared.moved == ("b", 0.3, 0.5)
    assert compare_counts({}, {"a": 3}).p_value == 1


@pytest.mark.parametrize(
    ("statistic", "degrees", "exact"),
    # The table of the chi-squared distribution.
    [
        (3.841, 1, 0.05),
        (5.991, 2, 0.05),
        (16.919, 9, 0.05),
        (27.877, 9, 0.001),
        (43.773, 30, 0.05),
        (59.703, 30, 0.001),
    ],
)
def test_the_tail_of_chi_squared_agrees_with_the_tables(statistic: float, degrees: int, exact: float) -> None:
    assert chi_squared_tail(statistic, degrees) == pytest.approx(exact, rel=0.1)


def test_rare_categories_are_tested_together() -> None:
    rare = {f"kind {i}": 1 for i in range(50)}
    others = {f"other kind {i}": 1 for i in range(50)}
    # 50 rare ones before and 50 now: one of them can not be told from another.
    assert compare_counts({"common": 950, **rare}, {"common": 950, **others}).p_value == 1


def months_with_an_alarm(rng: np.random.Generator, n_months: int, shares: dict[str, float]) -> float:
    settings, alarmed = DriftSettings(), 0
    for _ in range(n_months):
        watch = TrafficWatch(settings)
        for _ in range(settings.baseline_blocks):
            watch.complete(block_of(rng, 1_000, MIX))
        before = watch.n_alarmed
        for _ in range(31):
            watch.complete(block_of(rng, 1_000, shares))
        alarmed += watch.n_alarmed > before
    return alarmed / n_months


def test_few_months_of_unchanged_traffic_raise_an_alarm() -> None:
    # 40 months allow 3 alarms at most with a chance below 1e-3 if one month in a hundred may have one.
    assert months_with_an_alarm(np.random.default_rng(1), 40, MIX) <= 3 / 40


@pytest.mark.slow
def test_a_month_of_unchanged_traffic_raises_an_alarm_once_in_a_hundred_at_most() -> None:
    assert months_with_an_alarm(np.random.default_rng(2), 3_000, MIX) <= 0.01 + 3 * (0.01 * 0.99 / 3_000) ** 0.5


def test_traffic_that_changed_by_a_fifth_raises_an_alarm_on_the_first_day() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        watch = TrafficWatch(DriftSettings())
        for _ in range(7):
            watch.complete(block_of(rng, 1_000, MIX))
        watch.complete(block_of(rng, 1_000, {"greeting": 0.3, "code": 0.3, "mathematics": 0.4}))
        assert len(watch.alarms) == len(SIGNALS)


def test_a_change_that_is_sure_but_small_is_no_alarm() -> None:
    rng = np.random.default_rng(4)
    watch = TrafficWatch(DriftSettings())
    for _ in range(7):
        watch.complete(block_of(rng, 1_000_000, MIX))
    watch.complete(block_of(rng, 1_000_000, {"greeting": 0.45, "code": 0.35, "mathematics": 0.2}))
    assert watch.comparisons["kind"].p_value < 1e-100
    assert not watch.alarms


def test_an_alarm_says_in_words_what_changed_and_ends_when_the_traffic_is_as_before() -> None:
    watch = TrafficWatch(SMALL)
    for _ in range(300):
        watch.add(decision(kind="greeting"), 0.0)
    for _ in range(100):
        watch.add(decision(kind="code"), 0.0)
    (alarm,) = watch.alarms
    assert str(alarm) == (
        "the known kind of request that the prompt is nearest to changed: total variation distance 1.00; 'code' was 0% "
        "of the requests and is 100%"
    )
    for _ in range(100):
        watch.add(decision(kind="greeting"), 0.0)
    assert not watch.alarms
    assert watch.n_alarmed == 1


def test_a_block_needs_both_its_time_and_its_requests() -> None:
    watch = TrafficWatch(DriftSettings(block_s=DAY, block_requests=3))
    assert [watch.add(decision(), now) for now in (0, 1, 2, DAY - 1, DAY)] == [False, False, False, False, True]
    assert not watch.add(decision(), 3 * DAY)
    assert not watch.add(decision(), 5 * DAY)
    assert watch.add(decision(), 5 * DAY)


def test_a_session_counts_once_in_each_block() -> None:
    watch = TrafficWatch(SMALL)
    for _ in range(500):
        watch.add(decision(session_id="one"), 0.0)
    assert watch.current.n == 1
    for i in range(99):
        watch.add(decision(session_id=str(i)), 0.0)
    watch.add(decision(session_id="one"), 0.0)
    assert (watch.n_blocks, watch.current.n) == (1, 1)


def test_a_block_counts_a_bounded_number_of_categories() -> None:
    block = Block()
    for i in range(MAX_CATEGORIES + 50):
        block.add(decision(kind=f"kind {i}"), 0.0)
    assert len(block.counts["kind"]) == MAX_CATEGORIES + 1
    assert block.counts["kind"][OTHER] == 50


def test_blocks_add_up_to_what_one_block_would_have_counted() -> None:
    rows = [(decision(kind=str(i % 3)), float(i)) for i in range(60)]
    whole, parts = Block(), [Block(), Block()]
    for i, row in enumerate(rows):
        whole.add(*row)
        parts[i % 2].add(*row)
    parts[0].add_block(parts[1])
    assert parts[0].counts == whole.counts
    assert (parts[0].n, parts[0].started, parts[0].ended) == (60, 0.0, 59.0)
    assert parts[0].chosen_risk == pytest.approx(60 * 0.3)
    assert parts[0].strongest_risk == pytest.approx(60 * 0.1)


def test_a_watch_survives_a_restart_with_its_alarms() -> None:
    watch = TrafficWatch(SMALL)
    for kind in ("greeting", "greeting", "code"):
        for _ in range(100):
            watch.add(decision(kind=kind), 1.0)
    watch.add(decision(), 2.0)
    again = TrafficWatch.from_json(json.loads(json.dumps(watch.to_json())), SMALL)
    assert (again.n_blocks, again.n_alarmed, again.alarms) == (watch.n_blocks, watch.n_alarmed, watch.alarms)
    assert again.baseline.counts == watch.baseline.counts


@pytest.mark.parametrize(
    "broken", [{}, {"baseline": 1}, {"baseline": {"n": -1}}, {"last": None, "baseline": {}, "current": {}}]
)
def test_a_state_that_is_none_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TrafficWatch.from_json(broken, SMALL)


def test_an_infinite_count_in_a_state_is_refused() -> None:
    plain = TrafficWatch(DriftSettings()).to_json() | {"n_blocks": float("inf")}
    with pytest.raises(ConfigError, match="no state of a drift watch"):
        TrafficWatch.from_json(plain, DriftSettings())
