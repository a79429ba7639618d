"""Exploring happens for the share that the policy says, within its money, and nowhere else; propensities are right."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from router.deciding.pipeline import Router
from router.decision import Reason, RoutingDecision
from router.errors import ConfigError
from router.exploring.explorer import Explorer
from router.observing.observer import AnsweredEvent, AnswerOutcome
from router.policies.loading import load_policies
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy

NAMES = ("small", "middle", "large")
PRICES = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 10}
ABLE = {"api_base": "canned", "prices": PRICES, "capabilities": ["text", "tools"]}
CANDIDATES = [{"name": name, "model": f"openai/{name}", **ABLE} for name in NAMES]
#: Each answer is expected to have 300 tokens of output.
COST = 0.003


def router(folder: Path, explorer: Explorer | None, *, share: float = 0.4, usd: float = 1e6, **changes: Any) -> Router:
    policy = {"candidates": CANDIDATES, "explore": {"share": share, "usd_per_day": usd}} | changes
    encoder = FakeEncoder()
    path = write_policy(folder, names=NAMES, **policy)
    made = Router(load_policies([path]), {encoder.spec.identity: encoder})
    made.explorer = explorer
    return made


def explorer(**changes: Any) -> Explorer:
    return Explorer({}, **{"chance": random.Random(0).random} | changes)


def decided(made: Router, n: int, **query: Any) -> list[RoutingDecision]:
    return [made.decide(RouteQuery.from_prompt(f"prompt {number}", **query)) for number in range(n)]


def test_the_share_is_explored_and_each_record_has_the_probability_of_what_happened(tmp_path: Path) -> None:
    plain = decided(router(tmp_path, None), 300)
    explored = decided(router(tmp_path, explorer()), 300)
    drawn = [one for one in explored if one.reason is Reason.EXPLORED]
    assert 90 <= len(drawn) <= 150  # 120 expected; further off in less than one of 1,000 seeds
    for before, after in zip(plain, explored, strict=True):
        if after.reason is Reason.EXPLORED:
            assert after.would_choose == before.chosen != after.chosen
            assert after.propensity == pytest.approx(0.2)
        else:
            assert (after.chosen, after.reason) == (before.chosen, before.reason)
            assert after.propensity == pytest.approx(0.6)
    # Of the two others, each is drawn about as often.
    pairs = Counter((one.would_choose, one.chosen) for one in drawn)
    for name in {one.would_choose for one in drawn}:
        first, second = (pairs[name, other] for other in NAMES if other != name)
        assert abs(first - second) < 4 * (first + second) ** 0.5


@pytest.mark.parametrize(
    "query",
    [
        {"overrides": Overrides(pin="small")},
        {"overrides": Overrides(max_risk=0.5)},
        {"overrides": Overrides(min_gain=0.5)},
        {"overrides": Overrides(allowed_candidates=("small",))},
    ],
)
def test_what_the_caller_decides_is_not_explored(tmp_path: Path, query: dict[str, Any]) -> None:
    made = decided(router(tmp_path, explorer(chance=lambda: 0.0)), 3, **query)
    assert {one.reason is Reason.EXPLORED for one in made} == {False}
    assert {one.propensity for one in made} == {1.0}


def test_a_session_and_a_tool_loop_keep_their_candidate(tmp_path: Path) -> None:
    made = router(tmp_path, explorer(chance=lambda: 0.0))
    (first,) = decided(made, 1, session_id="s")
    assert first.reason is Reason.EXPLORED
    (second,) = decided(made, 1, session_id="s")
    assert second.reason is not Reason.EXPLORED
    loop = (
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    )
    assert made.decide(RouteQuery(loop)).propensity == 1.0


def test_exploring_ends_at_the_bound_of_the_day_and_goes_on_the_next_day(tmp_path: Path) -> None:
    now = [86_400.0 * 100]
    drawing = explorer(chance=lambda: 0.0, now=lambda: now[0])
    made = router(tmp_path, drawing, usd=3.5 * COST)
    reasons = [one.reason for one in decided(made, 6)]
    assert [one is Reason.EXPLORED for one in reasons] == [True] * 3 + [False] * 3
    now[0] += 86_400
    (again,) = decided(made, 1)
    assert again.reason is Reason.EXPLORED
    # An answer that cost more than expected uses up the rest.
    drawing.answered(AnsweredEvent(again, AnswerOutcome.ANSWERED, again.chosen, (), 1.0, cost_usd=COST * 3))
    (last,) = decided(made, 1)
    assert last.reason is not Reason.EXPLORED


def test_processes_share_the_bound_and_know_what_was_spent_before(tmp_path: Path) -> None:
    drawing = Explorer({"test": 2 * COST}, parts=2, chance=lambda: 0.0)
    made = router(tmp_path, drawing, usd=4.2 * COST)
    assert [one.reason is Reason.EXPLORED for one in decided(made, 2)] == [True, False]


def test_a_candidate_without_a_price_is_never_drawn(tmp_path: Path) -> None:
    unpriced = [dict(one) for one in CANDIDATES]
    del unpriced[2]["prices"]
    made = decided(router(tmp_path, explorer(chance=itertools.cycle([0.0, 0.99]).__next__), candidates=unpriced), 20)
    assert {one.chosen for one in made if one.reason is Reason.EXPLORED} <= {"small", "middle"}


def test_without_a_service_nothing_explores(tmp_path: Path) -> None:
    assert {one.propensity for one in decided(router(tmp_path, None, share=0.5), 20)} == {1.0}


async def test_a_service_without_a_ledger_refuses_a_policy_that_explores(tmp_path: Path) -> None:
    path = write_policy(
        tmp_path,
        names=NAMES,
        candidates=CANDIDATES,
        rule={"kind": "fixed", "candidate": "small"},
        probe=None,
        explore={"share": 0.1, "usd_per_day": 1},
    )
    with pytest.raises(ConfigError, match="explores, which is of no use without a ledger"):
        async with serving(ServerSettings(port=0, policies=(path,))):
            pass
