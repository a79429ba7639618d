"""Test policies that judge by a score of the caller: they need no encoder, and abstain if the score cannot be used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from router.deciding.pipeline import Router
from router.decision import Reason, ScoreUsed
from router.errors import ConfigError
from router.explaining.reason_words import describe_reason
from router.policies.caller_score import ScoreMap
from router.policies.loading import load_policy
from router.values import Overrides, RouteQuery
from tests.router.policies.score_policy import SCORE, write_score_policy


def decide(router: Router, scores: dict[str, float], **rest: Any) -> Any:
    overrides = Overrides(**rest.pop("overrides", {}))
    return router.decide(RouteQuery.from_prompt("hello", scores=scores, overrides=overrides, **rest))


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router.from_files(write_score_policy(tmp_path))


class TestDeciding:
    @pytest.mark.parametrize(("score", "chosen"), [(0.0, "large"), (0.49, "large"), (0.51, "small"), (1.0, "small")])
    def test_the_score_decides_and_is_on_record(self, router: Router, score: float, chosen: str) -> None:
        decision = decide(router, {"confidence": score, "other": 3.0})
        assert decision.chosen == chosen
        assert decision.score == ScoreUsed("Confidence", score)
        assert decision.candidates[0].risk == pytest.approx(0.9 - 0.8 * score)
        assert decision.gain == decision.candidates[0].risk - decision.candidates[1].risk
        assert decision.probe is not None
        assert decision.probe.name == "score Confidence"
        assert decision.timings.encode_s == 0

    @pytest.mark.parametrize(
        ("scores", "value", "fault"),
        [
            ({}, None, "missing"),
            ({"other": 0.9}, None, "missing"),
            ({"confidence": math.nan}, None, "no finite number"),
            ({"confidence": math.inf}, None, "no finite number"),
            ({"confidence": 1.01}, 1.01, "outside of 0 to 1"),
            ({"confidence": -0.01}, -0.01, "outside of 0 to 1"),
        ],
    )
    def test_without_a_usable_score_the_safe_default_answers(
        self, router: Router, scores: dict[str, float], value: float | None, fault: str
    ) -> None:
        decision = decide(router, scores)
        assert (decision.chosen, decision.reason, decision.abstained) == ("large", Reason.ABSTAINED, True)
        assert decision.score == ScoreUsed("Confidence", value, fault)
        assert describe_reason(decision) == f"abstained: score 'Confidence' {fault}"

    def test_overrides_work_as_with_a_probe(self, router: Router) -> None:
        assert decide(router, {"confidence": 0.6}, overrides={"min_gain": 0.1}).chosen == "large"
        assert decide(router, {"confidence": 0.6}, overrides={"max_risk": 0.5}).chosen == "small"
        pinned = decide(router, {}, overrides={"pin": "small"})
        assert (pinned.chosen, pinned.reason, pinned.score) == ("small", Reason.PINNED, None)

    def test_sessions_hold_as_with_a_probe(self, tmp_path: Path) -> None:
        candidates = [
            {"name": name, "model": f"openai/{name}", "api_base": "canned", "capabilities": ["text", "tools"]}
            for name in ("small", "large")
        ]
        router = Router.from_files(write_score_policy(tmp_path, candidates=candidates))
        strong = decide(router, {"confidence": 0.1}, session_id="s")
        loop = router.decide(
            RouteQuery(
                [
                    {"role": "user", "content": "hello"},
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
                    {"role": "tool", "tool_call_id": "1", "content": "done"},
                ],
                session_id="s",
                scores={"confidence": 0.9},
            )
        )
        assert (strong.chosen, loop.chosen, loop.reason) == ("large", "large", Reason.SESSION_HELD)


class TestMaps:
    def test_a_map_is_straight_between_knots_and_constant_beyond_them(self) -> None:
        one = ScoreMap(scores=(-1.0, 0.0, 2.0), risks=(0.1, 0.3, 0.9))
        assert [one.risk(x) for x in (-9, -1, -0.5, 0, 1, 2, 9)] == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.6, 0.9, 0.9])

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"risks": SCORE["risks"][:1]}, "score.risks must have a map per candidate, 2, got 1"),
            ({"low": 2.0}, "low must not be above high"),
            ({"name": "two words"}, "score.name"),
            ({"risks": [{"scores": [1, 0], "risks": [0.1, 0.2]}, SCORE["risks"][1]]}, "must ascend strictly"),
            ({"risks": [{"scores": [0, 1, 2], "risks": [0.1, 0.2, 0.1]}, SCORE["risks"][1]]}, "nowhere fall"),
            (
                {"risks": [{"scores": [0, 1], "risks": [0.1]}, SCORE["risks"][1]]},
                "must have equally many numbers, got 2 and 1",
            ),
            ({"risks": [{"scores": [math.nan], "risks": [0.1]}, SCORE["risks"][1]]}, "finite number"),
            ({"risks": [{"scores": [0], "risks": [1.5]}, SCORE["risks"][1]]}, "less than or equal to 1"),
        ],
    )
    def test_maps_that_cannot_be_used_are_refused(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            load_policy(write_score_policy(tmp_path, score=SCORE | changes))

    def test_a_policy_judges_by_a_probe_or_by_a_score(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="score must be absent if there is a probe"):
            load_policy(write_score_policy(tmp_path, probe="probe"))
        with pytest.raises(ConfigError, match="probe or score must be set"):
            load_policy(write_score_policy(tmp_path, score=None))
