"""A shadow decides what the serving policy decides, counts the difference, and can neither slow nor break it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.deciding.pipeline import Router
from router.observing.observer import Observers
from router.policies.loading import load_policies
from router.rollout.shadow import MAX_WAITING, ShadowWatch
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, fake_probe, fake_spec, write_policy

PRICES = {"prices": {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}}
STRONG = {"prices": {"input_usd_per_million_tokens": 10.0, "output_usd_per_million_tokens": 100.0}}
CANDIDATES = [
    {"name": "small", "model": "openai/small", "api_base": "canned", **PRICES},
    {"name": "large", "model": "openai/large", "api_base": "canned", **STRONG},
]
SEES = {"capabilities": ["text", "image"]}


class Both:
    """A service's router with a shadow behind it."""

    def __init__(self, folder: Path, *, marker: str = "0", **shadow: Any) -> None:
        self.encoder, self.own = FakeEncoder(), FakeEncoder(fake_spec(marker))
        served = load_policies([write_policy(folder, candidates=[{**one, **SEES} for one in CANDIDATES])])
        apart = folder / "shadow"
        apart.mkdir()
        probe = fake_probe(spec=self.own.spec)
        shadows = load_policies([write_policy(apart, probe, name="new", **({"candidates": CANDIDATES} | shadow))])
        self.watch = ShadowWatch(shadows, {self.own.spec.identity: self.own})
        encoders = {self.encoder.spec.identity: self.encoder}
        self.router = Router(served, encoders, observers=Observers(self.watch))

    async def ask(self, *prompts: str, **query: Any) -> list[str]:
        chosen = [(await self.router.adecide(RouteQuery.from_prompt(one, **query))).chosen for one in prompts]
        await self.router.close()
        self.watch.wait()
        self.watch.close()
        return chosen


PROMPTS = [f"prompt number {i}" for i in range(40)]


async def test_it_counts_what_each_would_choose_and_cost_and_encodes_nothing_again(tmp_path: Path) -> None:
    both = Both(tmp_path, rule={"kind": "fixed", "candidate": "small"})
    chosen = await both.ask(*PROMPTS)
    counts = both.watch.counts["new"]
    assert counts.pairs.total() == 40
    assert counts.pairs["large", "small"] == chosen.count("large") > 0
    assert counts.agreement == chosen.count("small") / 40
    assert counts.n_priced == 40
    assert counts.shadow_cost_usd < counts.cost_usd
    assert both.own.encoded == []


async def test_the_same_policy_agrees_always_from_the_features_that_are_known(tmp_path: Path) -> None:
    both = Both(tmp_path)
    await both.ask(*PROMPTS)
    assert both.watch.counts["new"].agreement == 1.0
    assert both.own.encoded == []


async def test_a_probe_of_another_encoder_encodes_for_itself(tmp_path: Path) -> None:
    both = Both(tmp_path, marker="1")
    await both.ask("why?")
    assert both.own.encoded == ["why?"]
    assert both.watch.counts["new"].pairs.total() == 1


async def test_a_shadow_that_fails_or_refuses_is_counted_and_the_service_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = [{**one, "context_window_tokens": 500} for one in CANDIDATES]
    both = Both(tmp_path, candidates=blind)
    await both.ask("why? " * 1_000)
    assert both.watch.counts["new"].n_refused == 1

    def fail(*_: object) -> None:
        raise ValueError("a bug")

    (tmp_path / "again").mkdir()
    failing = Both(tmp_path / "again")
    monkeypatch.setattr(failing.watch, "_decide", fail)
    assert len(await failing.ask("why?", "and now?")) == 2
    assert failing.watch.counts["new"].n_left_out == 2


async def test_requests_that_ask_for_a_policy_or_a_candidate_are_not_compared(tmp_path: Path) -> None:
    both = Both(tmp_path)
    await both.ask("why?", overrides=Overrides(pin="small"))
    assert both.watch.counts["new"].agreement is None


async def test_large_requests_are_left_out(tmp_path: Path) -> None:
    both = Both(tmp_path)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    both.router.decide(RouteQuery(({"role": "user", "content": [{"type": "text", "text": "why?"}, picture]},)))
    await both.ask("long " * 100_000)
    assert both.watch.counts["new"].n_left_out == 2


async def test_a_shadow_that_is_slow_leaves_requests_out_and_holds_up_nobody(tmp_path: Path) -> None:
    both = Both(tmp_path, marker="1")
    both.own.gate.clear()
    query = RouteQuery.from_prompt("why?")
    for _ in range(MAX_WAITING + 20):
        both.router.decide(query)
    assert both.watch.counts["new"].n_left_out >= 19
    both.own.gate.set()
    await both.router.close()
    both.watch.close()
