"""Tests of `/v1/systemone` and `/v1/decisions`: labels, probabilities, abstentions, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.client import RouterClient
from router.deciding import pipeline
from router.decision import CandidateRisk, RoutingDecision
from router.gateways.http.decision_models.answers import answer_question, cheapest_acceptable, tier_labels
from router.gateways.http.decision_models.questions import TierQuestion
from router.gateways.http.http_gateway import HttpGateway
from router.policies.policy_file import read_policy_file
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.loopback import in_thread
from tests.router.answering.test_fallback import NAMES, decision

LITELLM_TIERS = ("SIMPLE", "MEDIUM", "COMPLEX", "REASONING")


class Service:
    """A running service, asked over HTTP and gRPC."""

    def __init__(self, url: str, address: str) -> None:
        self.url, self.address = url, address

    def ask(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("policies")
    aliases = {"EASY": "small", "HARD": "large"}
    policies = (
        write_policy(folder, rule={"kind": "gain", "thresholds": [0.35]}, aliases=aliases),
        write_policy(folder, name="wary", abstain_above_leverage=1e-9),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=HttpGateway()))) as running:
            yield Service(f"http://{running.http_address}", running.address)


def choice(*labels: str) -> dict[str, Any]:
    return {"type": "choice", "instructions": "Pick a tier.", "criteria": dict.fromkeys(labels, "words")}


PROMPTS = [f"question number {number} about something" for number in range(20)]


def test_the_answer_is_that_of_the_engine(service: Service) -> None:
    with RouterClient(service.address) as client:
        for prompt in PROMPTS:
            decided = client.route(RouteQuery.from_prompt(prompt))
            state = f"\nClassify this message:\n{prompt}"
            body = {"model": "elle", "state": state, "questions": {"tier": choice("EASY", "HARD")}}
            reply = service.ask("/v1/systemone", body)
            assert reply.status_code == 200, reply.text
            answer = reply.json()["answers"]["tier"]
            risks = {row.candidate: row.risk for row in decided.candidates}
            assert answer["choice"] == {"small": "EASY", "large": "HARD"}[decided.chosen]
            assert answer["confidence"] == pytest.approx(1 - (risks[decided.chosen] or 0))
            assert answer["probabilities"]["EASY"] == pytest.approx(1 - (risks["small"] or 0))
            assert sum(answer["probabilities"].values()) == pytest.approx(1)
            assert reply.headers["x-elle-candidate"] == decided.chosen


def test_both_protocols_answer_alike(service: Service) -> None:
    for prompt in PROMPTS:
        one = service.ask(
            "/v1/systemone", {"model": "elle-test", "state": prompt, "questions": {"tier": choice(*LITELLM_TIERS)}}
        ).json()
        question = {
            "type": "choice",
            "name": "tier",
            "instructions": "Pick.",
            "choices": [{"value": label} for label in LITELLM_TIERS],
        }
        chat = [{"role": "user", "type": "message", "content": [{"type": "input_text", "text": prompt}]}]
        for given in (prompt, chat):
            other = service.ask("/v1/decisions", {"model": "elle", "input": given, "questions": [question]}).json()
            (answer,) = other["answers"]
            assert answer["choice"] == one["answers"]["tier"]["choice"]
            told = {one["value"]: one["probability"] for one in answer["probabilities"]}
            assert told == one["answers"]["tier"]["probabilities"]
            assert other["usage"]["total_tokens"] == one["usage"]["input_tokens"] > 0


def test_an_abstention_does_not_look_like_an_answer(service: Service) -> None:
    body = {"model": "elle/wary", "state": "something", "questions": {"tier": choice("EASY", "HARD")}}
    reply = service.ask("/v1/systemone", body)
    assert reply.status_code == 503
    assert reply.headers["x-elle-error"] == "UNDECIDED"
    assert "answers" not in reply.json()
    assert "ABSTAINED" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, "model must be text"),
        ({"model": "nobody"}, "model must be one of"),
        ({"state": ""}, "state must be the text to judge, or a chat, got none"),
        ({"state": None}, "state must be"),
        ({"questions": None}, "questions must be an object"),
        ({"questions": {}}, "questions must be an object of 1 to 128 questions, got 0 in an object"),
        ({"questions": {"tier": {"type": "noul", "instructions": "Is it?"}}}, "must be 'choice'"),
        ({"questions": {"tier": 7}}, "must be 'choice'"),
        ({"questions": {"tier": {"type": "choice", "criteria": {}}}}, "labels"),
        ({"questions": {"tier": {"type": "choice", "criteria": ["a"]}}}, "criteria must be"),
        ({"questions": {"tier": choice("x" * 300)}}, "1 to 200 characters"),
        ({"questions": {str(number): choice("a") for number in range(200)}}, "1 to 128"),
    ],
)
def test_what_is_malformed_is_refused_with_the_field(service: Service, change: dict[str, Any], words: str) -> None:
    body = {"model": "elle", "state": "something", "questions": {"tier": choice("EASY", "HARD")}} | change
    reply = service.ask("/v1/systemone", body)
    assert reply.status_code in {400, 404}
    assert words in reply.json()["error"]["message"]
    assert len(reply.text) < 2000


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), ["SIMPLE", "MEDIUM", "COMPLEX"]),
        (("SIMPLE", "COMPLEX"), ["SIMPLE", "COMPLEX", "COMPLEX"]),
        (("large", "small"), ["small", "small", "large"]),
        (("only",), ["only"] * 3),
        (("TOP", "SIMPLE"), ["TOP", "SIMPLE", "TOP"]),
    ],
)
def test_labels_stand_for_tiers_by_name_by_alias_or_by_order(
    tmp_path: Path, labels: tuple[str, ...], expected: list[str]
) -> None:
    names = ("small", "middle", "large")
    policy = read_policy_file(write_policy(tmp_path, names=names, aliases={"TOP": "large"}))
    assert tier_labels(TierQuestion("tier", labels), policy) == expected


def judged(*risks: float | None) -> RoutingDecision:
    rows = tuple(
        CandidateRisk(name, f"openai/{name}", risk, risk, None) for name, risk in zip("abc", risks, strict=True)
    )
    plain = decision("weak", (0.1,) * len(NAMES))
    return replace(plain, chosen="b", candidates=rows)


def test_probabilities_follow_from_the_risks_and_add_up(tmp_path: Path) -> None:
    assert list(cheapest_acceptable(judged(0.6, 0.25, 0.3))) == pytest.approx([0.4, 0.35, 0.25])
    assert list(cheapest_acceptable(judged(None, None, None))) == [0, 1, 0]
    policy = read_policy_file(write_policy(tmp_path, names=("a", "b", "c")))
    question = TierQuestion("tier", ("LOW", "HIGH"))
    answer = answer_question(question, judged(0.6, 0.25, 0.3), policy)
    assert (answer.choice, answer.confidence) == ("HIGH", 0.75)
    assert answer.probabilities == {"LOW": pytest.approx(0.4), "HIGH": pytest.approx(0.6)}
    assert answer_question(question, judged(None, None, None), policy).confidence is None
