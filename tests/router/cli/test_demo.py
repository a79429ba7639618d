"""`elle demo`: ordinary prompts come first and stay cheap, each with a reason, and the saving says against what."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from router.cli.demo import PROMPTS, next_steps, run_demo
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.explaining.sentences import short_reason
from router.money import usd_text
from router.values import RouteQuery

pytestmark = pytest.mark.usefixtures("_real_encoder")


@pytest.fixture
def decisions(router: Router) -> list[RoutingDecision]:
    return [router.decide(RouteQuery(prompt.messages)) for prompt in PROMPTS]


def test_the_first_eight_are_ordinary_and_stay_cheap_and_every_tier_answers(decisions: list[RoutingDecision]) -> None:
    assert len(decisions) == 12
    assert {one.chosen for one in decisions[:8]} == {"economy"}
    assert {one.chosen for one in decisions} == {"economy", "standard", "frontier"}
    kinds = [one.kinds.nearest[0].name for one in decisions[:8] if one.kinds is not None]
    assert kinds == [
        "greeting or small talk",
        "short factual question",
        "sentence to translate",
        "sentence to rewrite or correct",
        "small arithmetic",
        "short text to summarise",
        "everyday advice",
        "short factual question",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_the_saving_says_against_what(decisions: list[RoutingDecision], width: int) -> None:
    written = io.StringIO()
    run_demo(Console(file=written, width=width))
    lines = written.getvalue().split("What was real")[0].splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    text = " ".join(" ".join(lines).split())
    if width == 120:
        assert "Greeting or small talk, well within the economy" in text
        assert short_reason(decisions[4]) in text
    assert "Answered: 8 by economy, 2 by standard, 2 by frontier." in text
    spent = sum(
        next(c.expected_cost_usd or 0 for c in one.candidates if c.candidate == one.chosen) for one in decisions
    )
    always = sum(one.candidates[-1].expected_cost_usd or 0 for one in decisions)
    assert f"Expected cost of all 12: {usd_text(spent)}. If frontier had answered them all: {usd_text(always)}." in text
    assert f"That saves {100 * (1 - spent / always):.0f} %" in text


def test_what_to_do_next_is_written_as_it_can_be_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elle = tmp_path / "env" / "bin" / "elle"
    elle.parent.mkdir(parents=True)
    elle.write_text("#!/bin/sh\n")
    elle.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(elle), "demo"])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert " env/bin/elle explain " in next_steps()
    monkeypatch.setenv("PATH", str(elle.parent))
    assert " elle explain " in next_steps()
