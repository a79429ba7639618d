"""Judges are asked within the same budget and store, and a judge that talks nonsense stops the collection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from router.collecting.collect import CollectOptions, CollectSummary, collect
from router.collecting.graders import naming
from router.collecting.graders.base import Grader, GradingContext, PlannedCall
from router.collecting.sampling import Selection
from router.collecting.values import ModelAnswer, Sample, Verdict
from tests.router.collecting.simulated import Simulated, rows_of, simulated, write_log, write_policy

N = 25


@dataclass(frozen=True)
class SameAs(Grader):
    """Asks a judge whether the answer means the same as that of another model."""

    name: ClassVar[str] = "same-as"
    model: str = "referee"
    other: str = "strong"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def answers_of(self) -> tuple[str, ...]:
        return (self.other,)

    def calls(self, sample: Sample, answer_tokens: int) -> tuple[PlannedCall, ...]:
        return (PlannedCall(self.model, 50 + 2 * answer_tokens, 3),)

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        other = await context.answer_of(self.other)
        asked = f"JUDGE {answer.text} | {other.text}"
        said = await context.ask(self.model, [{"role": "user", "content": asked}], {"max_tokens": 3})
        if said.text not in {"yes", "no"}:
            return self.no_verdict("the judge said neither yes nor no.")
        return self.verdict(float(said.text == "yes"))


def referee(model: str, prompt: str) -> str | None:
    if not prompt.startswith("JUDGE "):
        return None
    one, _, other = prompt.removeprefix("JUDGE ").partition(" | ")
    return "yes" if one == other else "no"


@pytest.fixture(autouse=True)
def _grader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def load(self) -> type[Grader]:
            return SameAs

    found: Mapping[str, object] = {"same-as": Point()}
    monkeypatch.setattr(naming, "_foreign", lambda: found)


def run(folder: Path, upstream: Simulated, **options: object) -> CollectSummary:
    judges = write_policy(folder / "judges.yaml", upstream.url, ("tiny",))
    judges.write_text(judges.read_text().replace('"tiny"', '"referee"').replace("openai/tiny", "openai/referee"))
    policy = write_policy(folder / "p.yaml", upstream.url, ("tiny", "small"))
    log = write_log(folder / "log.jsonl", N)
    asked = CollectOptions(selection=Selection(n=N), graders=("same-as:other=small",), judges=judges, **options)  # type: ignore[arg-type]
    found = collect([log], policy, folder / "o.jsonl", asked)
    assert found is not None
    return found


def test_a_judge_compares_answers_that_are_asked_for_once(tmp_path: Path) -> None:
    with simulated(answer=referee) as upstream:
        summary = run(tmp_path, upstream)
        assert summary.stopped is None
        assert upstream.requests["tiny"] == upstream.requests["small"] == N
        assert upstream.requests["referee"] <= 2 * N
        asked = upstream.requests["referee"]
        run(tmp_path, upstream)
        assert upstream.requests["referee"] == asked
    rows = rows_of(tmp_path / "o.jsonl")
    assert {row["compared_with"] for row in rows} == {"small"}
    tiny = {row["group"]: row["score"] for row in rows if row["model"] == "tiny"}
    assert tiny == {"spelling": 1.0, "capital": 0.0, "sum": 1.0, "proof": 1.0}


@pytest.mark.parametrize("budget_usd", [0.0015, 0.0022])
def test_calls_of_judges_count_in_the_budget(tmp_path: Path, budget_usd: float) -> None:
    with simulated(answer=referee) as upstream:
        summary = run(tmp_path, upstream, budget_usd=budget_usd, max_output_tokens=20)
        assert upstream.usd <= budget_usd
    assert summary.stopped == "the budget allows no further prompt."
    assert len(rows_of(tmp_path / "o.jsonl")) == 2 * summary.n_done > 0


def test_a_judge_that_answers_nonsense_stops_the_run_and_what_was_paid_is_kept(tmp_path: Path) -> None:
    with simulated(answer=lambda model, prompt: "perhaps" if model == "referee" else None) as upstream:
        summary = run(tmp_path, upstream)
        assert "gave no usable verdict 10 times in a row" in str(summary.stopped)
        assert "said neither yes nor no" in str(summary.stopped)
        assert summary.written.n_rows == 0
        first = upstream.requests["tiny"]
        assert upstream.requests["referee"] < 2 * N
        upstream.answer = referee
        run(tmp_path, upstream)
        assert upstream.requests["tiny"] <= N
        assert first <= N
