"""The budget is hard: with many calls in flight nothing is spent beyond it, and what is done stays a random sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.collecting.calls.asking import AskingLimits, _mean_token_loss
from router.collecting.calls.budget import NOTHING, Budget, Cost, StopCollectingError, most_input_tokens
from router.collecting.collect import CollectOptions, collect, plan_collection
from router.collecting.sampling import Selection
from router.errors import ConfigError
from tests.router.collecting.simulated import rows_of, simulated, write_log, write_policy


@pytest.mark.parametrize("budget_usd", [0.006, 0.0117, 0.02])
def test_no_call_breaks_the_budget_however_many_are_in_flight(tmp_path: Path, budget_usd: float) -> None:
    files = []
    for concurrency in (1, 8):
        folder = tmp_path / str(concurrency)
        folder.mkdir()
        with simulated() as upstream:
            options = CollectOptions(
                selection=Selection(n=60),
                budget_usd=budget_usd,
                max_output_tokens=20,
                limits=AskingLimits(concurrency=concurrency),
            )
            policy, log = write_policy(folder / "p.yaml", upstream.url), write_log(folder / "log.jsonl", 60)
            summary = collect([log], policy, folder / "o.jsonl", options)
            assert upstream.usd <= budget_usd
        assert summary is not None
        assert summary.stopped == "the budget allows no further prompt."
        assert 0 < summary.n_done < 60
        assert summary.spent_usd == pytest.approx(upstream.usd)
        files.append((folder / "o.jsonl").read_bytes())
    assert files[0] == files[1], "which prompts are done does not depend on who answers first"


def test_a_run_that_stopped_for_its_budget_goes_on_when_it_is_raised_and_counts_from_where_it_was(
    tmp_path: Path,
) -> None:
    with simulated() as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", 30)
        done = []
        for max_calls in (17, 17, 41, None):
            options = CollectOptions(selection=Selection(n=30), max_calls=max_calls)
            summary = collect([log], policy, tmp_path / "o.jsonl", options)
            assert summary is not None
            done.append((summary.n_done, sum(upstream.paid.values())))
    assert done == [(4, 16), (4, 16), (10, 40), (30, 120)]
    complete = [row["prompt_id"] for row in rows_of(tmp_path / "o.jsonl")]
    assert len(complete) == 120


def test_a_budget_that_is_too_small_for_one_prompt_or_without_a_price_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    with simulated() as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", 30)
        with pytest.raises(ConfigError, match="--budget-usd must allow for one prompt, which can cost"):
            collect([log], policy, tmp_path / "o.jsonl", CollectOptions(budget_usd=1e-6))
        with pytest.raises(ConfigError, match="--max-calls must allow for one prompt, which needs 4 calls"):
            collect([log], policy, tmp_path / "o.jsonl", CollectOptions(max_calls=3))
        write_policy(policy, upstream.url, prices=None)
        with pytest.raises(ConfigError, match=r"needs the price of everybody .* Set `prices`"):
            collect([log], policy, tmp_path / "o.jsonl", CollectOptions(budget_usd=1.0))
        assert not upstream.requests


async def test_a_reservation_asks_for_more_only_if_it_fits_and_gives_back_what_is_left() -> None:
    budget = Budget(1.0, 10)
    one, other = await budget.admit(Cost(0.4, 2)), await budget.admit(Cost(0.4, 2))
    assert one is not None
    assert other is not None
    one.take(Cost(0.5, 1))
    with pytest.raises(StopCollectingError, match="raise --budget-usd"):
        other.take(Cost(0.7, 1))
    one.settle(Cost(0.5, 1), Cost(0.1, 1))
    one.close()
    other.take(Cost(0.9, 1))
    other.settle(Cost(0.9, 1), NOTHING)
    other.close()
    assert (budget.spent.usd, budget.spent.calls) == (pytest.approx(0.1), 1)
    assert await budget.admit(Cost(0.91, 1)) is None
    assert await budget.admit(NOTHING) is not None


def test_the_bound_on_input_tokens_counts_bytes() -> None:
    assert most_input_tokens([{"role": "user", "content": "ü" * 100}], {}) > 200


def test_counts_that_are_none_are_charged_at_the_most_that_they_can_have_cost(tmp_path: Path) -> None:
    usage = {"prompt_tokens": "many", "completion_tokens": -5}
    with simulated(odd={"usage": usage}) as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", 8)
        options = CollectOptions(selection=Selection(n=8), budget_usd=1.0, max_output_tokens=20)
        plan = plan_collection([log], policy, tmp_path / "o.jsonl", options)
        summary = collect([log], policy, tmp_path / "o.jsonl", options)
    assert summary is not None
    assert summary.spent_usd == pytest.approx(plan.most_usd)
    assert {row["cost_usd"] for row in rows_of(tmp_path / "o.jsonl")} == {None}


@pytest.mark.parametrize("reason", ["\ud800", "x" * 1_000_000, ["stop"]])
def test_an_odd_reason_why_an_answer_ended_breaks_no_collection(tmp_path: Path, reason: object) -> None:
    message = {"role": "assistant", "content": "half a pair \ud83d"}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    with simulated(odd={"choices": [choice]}) as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", 4)
        summary = collect([log], policy, tmp_path / "o.jsonl", CollectOptions(selection=Selection(n=4)))
    assert summary is not None
    assert summary.written.n_complete == 4
    assert (tmp_path / "elle-collect.sqlite").stat().st_size < 100_000


@pytest.mark.parametrize("losses", [[-1e308, -1e308], [5.0], [-(10**300)], [True]])
def test_log_probabilities_that_are_none_give_no_loss(losses: list[float]) -> None:
    assert _mean_token_loss({"content": [{"logprob": value} for value in losses]}) is None


def test_an_upstream_that_asks_to_be_left_alone_for_a_year_ends_the_run_at_once(tmp_path: Path) -> None:
    with simulated(dead={"strong"}, failure_headers={"Retry-After": "31536000"}) as upstream:
        policy, log = write_policy(tmp_path / "p.yaml", upstream.url), write_log(tmp_path / "log.jsonl", 4)
        summary = collect([log], policy, tmp_path / "o.jsonl", CollectOptions(selection=Selection(n=4)))
    assert summary is not None
    assert summary.stopped is not None
    assert "lets nothing through for now" in summary.stopped
    assert upstream.requests["tiny"] > 0


def test_a_budget_that_is_no_number_is_refused(tmp_path: Path) -> None:
    policy, log = write_policy(tmp_path / "p.yaml", "http://127.0.0.1:9/v1"), write_log(tmp_path / "log.jsonl", 4)
    with pytest.raises(ConfigError, match="--budget-usd must be a number"):
        collect([log], policy, tmp_path / "o.jsonl", CollectOptions(budget_usd=float("nan")))
