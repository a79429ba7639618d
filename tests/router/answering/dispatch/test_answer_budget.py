"""Tests of the budget of all answers: it is counted, given back, and a full one sends the request on or away."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from router.errors import UpstreamUnavailableError
from router.gateways.http.openai_format import OPENAI_FORMAT
from router.intake import answer_budget
from router.intake.answer_budget import BUDGET, FREE_BYTES, AnswerBudget, HeldAnswer
from router.values import RouteQuery
from tests.router.answering.dispatch.dispatch_stack import Upstream, candidate, dispatching
from tests.router.faults import answer

pytestmark = pytest.mark.asyncio(loop_scope="package")

LARGE = 3 * 1024 * 1024
CHEAPEST = {"kind": "risk_bound", "max_risk": 1.0}


async def test_bytes_are_counted_beyond_the_free_ones_and_given_back() -> None:
    budget = AnswerBudget(max_bytes=1000)
    one, other = HeldAnswer(budget), HeldAnswer(budget)
    one.hold(FREE_BYTES + 900)
    other.hold(FREE_BYTES + 100)
    with pytest.raises(UpstreamUnavailableError, match="all of the 1,000 bytes"):
        other.hold(FREE_BYTES + 101)
    one.release()
    other.hold(FREE_BYTES + 1000)
    del other
    gc.collect()
    one.hold(FREE_BYTES + 1000)


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_a_whole_answer_is_held_until_nobody_has_it_any_more(
    folder: Path, upstream: Upstream, provider: str
) -> None:
    upstream.answer = JSONResponse(answer("x" * LARGE))
    both = [candidate(name, upstream.url, model=f"{provider}/{name}") for name in ("small", "large")]
    async with dispatching(folder, *both) as world:
        before = BUDGET._held_bytes
        completion = await world.complete(RouteQuery.from_prompt("hello"))
        assert BUDGET._held_bytes - before > LARGE - FREE_BYTES
        del completion
        gc.collect()
        assert BUDGET._held_bytes == before


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_without_room_the_next_candidate_is_asked_and_then_the_caller_told_to_come_again(
    folder: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, provider: str, streamed: bool
) -> None:
    monkeypatch.setattr(answer_budget, "BUDGET", AnswerBudget(max_bytes=1024))
    upstream.answer = JSONResponse(answer("x" * LARGE))
    both = [candidate(name, upstream.url, model=f"{provider}/{name}", retries=0) for name in ("small", "large")]
    async with dispatching(folder, *both, rule=CHEAPEST) as world:
        ask = world.stream if streamed else world.complete
        with pytest.raises(UpstreamUnavailableError, match="answers of upstreams take all of the") as caught:
            await ask(RouteQuery.from_prompt("hello"))
        assert [one.candidate for one in caught.value.attempts] == ["small", "large"]
        assert not caught.value.counts
        assert OPENAI_FORMAT.error_reply(caught.value)[0] == 503
        assert answer_budget.BUDGET._held_bytes == 0
