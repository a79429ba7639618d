"""`elle compare` finds out from a ledger what other policies would have done, and says so when it cannot."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.deciding.pipeline import Router
from router.exploring.explorer import Explorer
from router.feedback.desk import FeedbackDesk, FeedbackGiver
from router.feedback.pieces import FeedbackKind, FeedbackPiece
from router.ledger.recorder import Ledger
from router.observing.observer import AnsweredEvent, AnswerOutcome, Observers
from router.policies.loading import load_policies
from router.values import RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.ledger.rows import sqlite_ledger

N = 500
PRICES = {"small": 1.0, "large": 10.0}
CANDIDATES = [
    {
        "name": name,
        "model": f"openai/{name}",
        "api_base": "canned",
        "prices": {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": price},
    }
    for name, price in PRICES.items()
]


def is_good(prompt: str, candidate: str) -> bool:
    """Return the truth: the large one is right for 85 of 100 prompts, the small one for 60."""
    luck = int.from_bytes(hashlib.sha256(f"{candidate} {prompt}".encode()).digest()[:4]) / 2**32
    return luck < {"small": 0.6, "large": 0.85}[candidate]


def write(folder: Path, name: str, rule: dict[str, Any], **more: Any) -> Path:
    return write_policy(folder, name=name, candidates=CANDIDATES, rule=rule, **more)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two policies, and a ledger of a third one that explores."""
    folder = tmp_path_factory.mktemp("world")
    write(folder, "cheap", {"kind": "fixed", "candidate": "small"})
    write(folder, "strong", {"kind": "fixed", "candidate": "large"})
    write(folder, "by-gain", {"kind": "gain", "thresholds": [0.2]})
    explore = {"share": 0.4, "usd_per_day": 1e6}
    served = write(folder, "served", {"kind": "gain", "thresholds": [0.3]}, explore=explore)
    asyncio.run(_serve(folder, served, N))
    return folder


async def _serve(folder: Path, policy: Path, n: int, *, explores: bool = True, name: str = "ledger.db") -> None:
    ledger = Ledger(sqlite_ledger(folder))
    encoder = FakeEncoder()
    router = Router(load_policies([policy]), {encoder.spec.identity: encoder}, observers=Observers(ledger))
    router.explorer = Explorer({}, chance=random.Random(5).random) if explores else None
    desk = FeedbackDesk(ledger)
    made = []
    for number in range(n):
        prompt = f"prompt {number}"
        decision = router.decide(RouteQuery.from_prompt(prompt))
        cost = PRICES[decision.chosen] * 300 / 1e6
        ledger.answered(AnsweredEvent(decision, AnswerOutcome.ANSWERED, decision.chosen, (), 1.0, cost_usd=cost))
        value = float(is_good(prompt, decision.chosen))
        made.append(desk.take(FeedbackPiece(FeedbackKind.CHECK, value, decision.decision_id), FeedbackGiver("")))
    for start in range(0, n, 250):
        await asyncio.gather(*made[start : start + 250])
    ledger.close()


def elle(folder: Path, *arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(cli, ["compare", *arguments, "--ledger", str(folder / "ledger.db")])
    assert done.exit_code == status, done.output
    return done


def test_both_policies_are_estimated_within_their_intervals(world: Path) -> None:
    asked = str(world / "cheap.yaml"), str(world / "strong.yaml"), "--json"
    found = json.loads(elle(world, *asked).stdout)
    truths = [np.mean([is_good(f"prompt {number}", name) for number in range(N)]) for name in PRICES]
    assert (found["n_replayed"], found["agreement"]) == (N, 0)
    assert found["quality"]["enough"]
    for truth, policy, price in zip(truths, found["quality"]["policies"], PRICES.values(), strict=True):
        for name, one in policy["estimates"].items():
            # Wider by a half than the interval, because six of them must hold at once.
            slack = (one["high"] - one["low"]) / 4
            assert one["low"] - slack <= truth <= one["high"] + slack, (policy["policy"], name)
        cost = found["cost_usd"]["policies"][list(PRICES.values()).index(price)]["estimates"]["dr"]
        assert cost["value"] == pytest.approx(price * 300 / 1e6, rel=0.02)
    gained = found["quality"]["difference"]["dr"]
    assert gained["low"] <= truths[1] - truths[0] <= gained["high"]
    assert gained["low"] > 0


def test_the_text_says_the_same(world: Path) -> None:
    said = elle(world, str(world / "by-gain.yaml"), str(world / "strong.yaml"), "--kind", "check").stdout
    assert f"{N:,} decisions were decided again" in said
    assert "strong - by-gain" in said
    assert "NOT ENOUGH" not in said


def test_feedback_of_another_kind_is_not_enough(world: Path) -> None:
    asked = str(world / "cheap.yaml"), str(world / "strong.yaml"), "--kind", "thumb"
    said = elle(world, *asked, "--name", "style", status=3).stdout
    assert "NOT ENOUGH to compare quality: none of these decisions has feedback of the kind thumb with the name" in said
    assert "'style'" in said


def test_retries_are_no_quality_because_nobody_says_that_there_was_none(world: Path) -> None:
    asked = str(world / "cheap.yaml"), str(world / "strong.yaml"), "--kind", "retry"
    assert "'retry' is not one of" in elle(world, *asked, status=2).stderr


def test_policies_whose_files_have_one_name_are_told_apart(world: Path) -> None:
    (world / "next").mkdir(exist_ok=True)
    other = world / "next" / "cheap.yaml"
    text = (world / "strong.yaml").read_text()
    other.write_text(text.replace("probe: probe", "probe: ../probe"))
    found = json.loads(elle(world, str(world / "cheap.yaml"), str(other), "--json").stdout)
    names = [one["policy"] for one in found["quality"]["policies"]]
    assert names == [str(world / "cheap.yaml"), str(other)]


def test_a_span_without_decisions_and_a_seed_below_zero_are_told_plainly(world: Path) -> None:
    asked = str(world / "cheap.yaml"), str(world / "strong.yaml")
    assert "look at `elle ledger stats` and --since" in elle(world, *asked, "--since", "2100-01-01", status=1).stderr
    assert "-1 is not in the range x>=0" in elle(world, *asked, "--seed", "-1", status=2).stderr
    assert "'yesterday' is no day or time (UTC), such as 2026-11-01" in (
        elle(world, *asked, "--since", "yesterday", status=2).stderr
    )


@pytest.mark.parametrize(("place", "why"), [("", "it is empty"), ("mysql://host/base", "got a URL 'mysql'")])
def test_a_place_that_no_ledger_can_have_is_wrong_usage(place: str, why: str) -> None:
    asked = (("drift",), ("ledger", "stats"), ("serve",), ("canary", "step", "--reference", "x"))
    for verb in (*asked, ("recalibrate", "probe", "--out", "new")):
        done = CliRunner().invoke(cli, [*verb, "--ledger", place])
        assert (done.exit_code, why in done.stderr) == (2, True), done.output


def test_without_exploring_it_says_plainly_that_it_is_not_enough(tmp_path: Path) -> None:
    cheap = write(tmp_path, "cheap", {"kind": "fixed", "candidate": "small"})
    strong = write(tmp_path, "strong", {"kind": "fixed", "candidate": "large"})
    asyncio.run(_serve(tmp_path, cheap, 150, explores=False))
    said = elle(tmp_path, str(cheap), str(strong), status=3).stdout
    assert "for 100% of the requests the policy's choice could not have been logged" in said


def test_a_policy_of_other_candidates_says_why_nothing_can_be_compared(world: Path) -> None:
    other = write_policy(
        world, name="other", names=("tiny", "small"), rule={"kind": "fixed", "candidate": "tiny"}, probe=None
    )
    done = CliRunner().invoke(cli, ["compare", str(other), str(other), "--ledger", str(world / "ledger.db")])
    assert done.exit_code == 1
    assert "the log knows no candidate 'tiny'" in done.output
