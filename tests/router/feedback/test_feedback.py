"""Feedback reaches the ledger through gRPC and HTTP, is promised once it is there, and a failed check can escalate."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.client import RouterClient
from router.decision import Reason, RoutingDecision
from router.errors import InvalidRequestError, ServiceError
from router.feedback.desk import FeedbackDesk, FeedbackGiver
from router.feedback.pieces import FeedbackAuthority, FeedbackKind, FeedbackPiece, FeedbackStatus
from router.feedback.weighing import opinions_of
from router.gateways.http.http_gateway import HttpGateway
from router.ledger.opening import opened_reader
from router.ledger.reader import LoggedDecision
from router.ledger.recorder import Ledger
from router.ledger.settings import LedgerSettings
from router.pb import router_service_pb2 as pb
from router.serving.server import RunningService
from router.serving.settings import ServerSettings
from router.times import first_id_at, new_id
from router.values import Overrides
from router.wire.feedback_messages import piece_from_wire
from tests.router.ledger.rows import sqlite_ledger
from tests.service import running


@dataclass
class Service:
    ledger: LedgerSettings
    client: RouterClient
    http: httpx.Client
    running: RunningService

    def decide(self, **rest: Any) -> RoutingDecision:
        return self.client.route("Say hello.", Overrides(pin="economy"), api_key="me", **rest)

    def rate(self, decision: RoutingDecision, *, api_key: str = "me", **fields: Any) -> Any:
        asked = {"kind": FeedbackKind.THUMB, "value": 1.0, "decision_id": decision.decision_id} | fields
        return self.client.feedback(FeedbackPiece(**asked), api_key=api_key)

    def post(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/feedback", json=body, headers={"x-api-key": "me"})

    def logged(self, decision: RoutingDecision) -> LoggedDecision:
        with opened_reader(self.ledger) as reader:
            found = reader.decision(decision.decision_id)
            assert found is not None
            return found


@pytest.fixture(scope="module")
def service(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    ledger = replace(sqlite_ledger(tmp_path_factory.mktemp("ledger")), flush_s=0.05)
    settings = ServerSettings(port=0, drain_s=1, http=HttpGateway(), ledger=ledger)
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(running(settings))
        client = stack.enter_context(RouterClient(one.address))
        http = stack.enter_context(httpx.Client(base_url=f"http://{one.http_address}", timeout=60))
        yield Service(ledger, client, http, one)


def test_feedback_is_on_the_disk_when_it_is_promised(service: Service) -> None:
    decision = service.decide()
    receipt = service.rate(decision, source="chat window")
    assert (receipt.decision_id, receipt.status, receipt.late) == (decision.decision_id, FeedbackStatus.ACCEPTED, False)
    found = service.logged(decision)
    (piece,) = found.feedback
    assert (piece.feedback_id, piece.kind, piece.value, piece.source) == (
        receipt.feedback_id,
        "thumb",
        1.0,
        "chat window",
    )
    assert piece.authority == FeedbackAuthority.USER
    assert [one.value for one in opinions_of(found)] == [1.0]


def test_the_same_key_counts_once_and_other_feedback_under_it_is_refused(service: Service) -> None:
    decision = service.decide()
    first = service.rate(decision, idempotency_key="k")
    again = service.rate(decision, idempotency_key="k")
    assert (first.status, again.status) == (FeedbackStatus.ACCEPTED, FeedbackStatus.DUPLICATE)
    assert first.feedback_id == again.feedback_id
    with pytest.raises(ServiceError, match="used for other feedback"):
        service.rate(decision, idempotency_key="k", value=0.0)
    # The same key of another caller is another key, but the decision is not theirs.
    with pytest.raises(ServiceError, match="no such decision of this caller"):
        service.rate(decision, idempotency_key="k", api_key="you")
    assert len(service.logged(decision).feedback) == 1


def test_sources_that_disagree_dispute_and_a_verifier_settles_it(service: Service) -> None:
    decision = service.decide()
    check = {"kind": FeedbackKind.CHECK, "authority": FeedbackAuthority.JUDGE}
    assert service.rate(decision, **check, source="a").status is FeedbackStatus.ACCEPTED
    assert service.rate(decision, **check, source="b", value=0.0).status is FeedbackStatus.DISPUTED
    assert opinions_of(service.logged(decision))[0].value is None
    assert service.rate(decision, kind=FeedbackKind.CHECK, source="ci").status is FeedbackStatus.ACCEPTED
    assert opinions_of(service.logged(decision))[0].value == 1.0


def test_unknown_decisions_are_refused_unless_they_may_be_on_their_way(service: Service) -> None:
    old = f"{first_id_at(1e9)}7000" + "8" * 16
    with pytest.raises(ServiceError, match="no such decision") as refused:
        service.client.feedback(FeedbackPiece(FeedbackKind.THUMB, 1.0, old))
    assert refused.value.code == "NOT_FOUND"
    headers = {"x-api-key": "me", "x-elle-escalated-from": old}
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    answers = {
        "decision_id": service.post(kind="thumb", value=1, decision_id=old),
        "request_id": service.post(kind="thumb", value=1, request_id="nobody's"),
        "escalated_from": service.http.post("/v1/chat/completions", json=body, headers=headers),
    }
    assert {name: one.json()["error"]["param"] for name, one in answers.items()} == {name: name for name in answers}
    coming = service.client.feedback(FeedbackPiece(FeedbackKind.THUMB, 1.0, new_id()))
    assert coming.status is FeedbackStatus.PENDING


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 1.5},
        {"value": float("nan")},
        {"value": 0.5},
        {"decision_id": "x"},
        {"decision_id": ""},
        {"request_id": "both"},
        {"source": "x" * 65},
        {"kind": FeedbackKind.RETRY},
    ],
)
def test_feedback_that_makes_no_sense_is_refused_before_it_is_sent(fields: dict[str, Any]) -> None:
    asked = {"kind": FeedbackKind.THUMB, "value": 1.0, "decision_id": new_id()} | fields
    with pytest.raises(InvalidRequestError):
        FeedbackPiece(**asked)


def test_feedback_over_http_by_the_id_of_the_request_or_the_answer(service: Service) -> None:
    body = {"model": "economy", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": "me", "x-request-id": "of the caller"}
    answer = service.http.post("/v1/chat/completions", json=body, headers=headers)
    decision_id = answer.headers["x-elle-decision-id"]
    for named in (
        {"decision_id": decision_id},
        {"request_id": "of the caller"},
        {"request_id": answer.headers["x-request-id"]},
    ):
        receipt = service.post(kind="verdict", value="good", **named)
        assert receipt.status_code == 200, receipt.text
        assert receipt.json()["decision_id"] == decision_id
    retry = service.post(kind="retry", decision_id=decision_id)
    assert retry.json() | {"feedback_id": ""} == {
        "feedback_id": "",
        "decision_id": decision_id,
        "status": "accepted",
        "late": False,
        "escalate_to": "",
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "smile", "value": 1}, "kind must be one of score, verdict"),
        ({"kind": "thumb", "value": "sideways"}, "value must be a number from 0 to 1"),
        ({"kind": "thumb", "value": 10**400}, "finite|from 0 to 1|plain JSON|range of a double"),
        ({"kind": "thumb", "value": 1, "mood": 3}, "the body may hold authority, decision_id"),
        ({"kind": "thumb", "value": 1, "source": 3}, "source must be text"),
        ({"kind": "thumb", "value": 1, "request_id": "nobody's"}, "no such decision"),
    ],
)
def test_bad_feedback_over_http_gets_an_error_that_says_what_to_do(service: Service, body: Any, words: str) -> None:
    answer = service.post(**({"decision_id": new_id()} if "request_id" not in body else {}), **body)
    assert answer.status_code in {400, 404}
    assert re.search(words, answer.json()["error"]["message"])


def test_a_failed_check_leads_one_tier_up_and_the_ledger_says_from_where(service: Service) -> None:
    first = service.decide()
    receipt = service.rate(first, kind=FeedbackKind.CHECK, value=0.0)
    assert receipt.escalate_to == "standard"
    second = service.client.route("Say hello.", api_key="me", escalated_from=first.decision_id)
    assert second.chosen in {"standard", "frontier"}
    assert second.escalated_from == first.decision_id
    without_standard = Overrides(denied_candidates=("standard",))
    third = service.client.route("Say hello.", without_standard, api_key="me", escalated_from=first.decision_id)
    assert (third.chosen, third.reason) == ("frontier", Reason.ONLY_ELIGIBLE)
    service.client.feedback(FeedbackPiece(FeedbackKind.CHECK, 1.0, second.decision_id), api_key="me")
    assert service.logged(second).values["escalated_from"] == first.decision_id
    over_http = service.http.post(
        "/v1/chat/completions",
        json={"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]},
        headers={"x-api-key": "me", "x-elle-escalated-from": third.decision_id},
    )
    assert over_http.status_code == 400
    assert "frontier is the strongest candidate" in over_http.json()["error"]["message"]


@pytest.mark.parametrize(("escalated_from", "api_key"), [("nonsense", "me"), ("0" * 32, "me"), (None, "you")])
def test_nobody_escalates_a_decision_that_is_not_theirs(
    service: Service, escalated_from: str | None, api_key: str
) -> None:
    asked = escalated_from or service.decide().decision_id
    with pytest.raises(ServiceError, match=r"no such decision|must be the id of a decision"):
        service.client.route("Say hello.", api_key=api_key, escalated_from=asked)


def test_without_a_ledger_the_service_says_so(address: str) -> None:
    with RouterClient(address) as client:
        for call in (
            lambda: client.feedback(FeedbackPiece(FeedbackKind.THUMB, 1.0, new_id())),
            lambda: client.route("x", escalated_from=new_id()),
        ):
            with pytest.raises(ServiceError, match="keeps a ledger; start it with --ledger") as refused:
                call()
            assert refused.value.code == "UNIMPLEMENTED"


def test_while_the_database_is_away_feedback_is_spooled_and_promised(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    ledger = Ledger(sqlite_ledger(folder, key_file=_key(tmp_path), spool_dir=tmp_path / "spool"))
    desk = FeedbackDesk(ledger)
    piece = FeedbackPiece(FeedbackKind.THUMB, 1.0, new_id())
    receipt = asyncio.run(desk.take(piece, FeedbackGiver("me")))
    assert receipt.status is FeedbackStatus.PENDING
    ledger.close()
    folder.mkdir()
    Ledger(sqlite_ledger(folder, key_file=_key(tmp_path), spool_dir=tmp_path / "spool")).close()
    with opened_reader(sqlite_ledger(folder)) as reader:
        assert reader.feedback_by_id(receipt.feedback_id) is not None


def _key(folder: Path) -> Path:
    (folder / "key").write_text("0" * 32)
    return folder / "key"


def test_what_became_of_the_rows_is_in_the_metrics(service: Service) -> None:
    service.rate(service.decide())
    values = service.running.tally.snapshot().values
    assert values["elle_ledger_rows"][("written",)] >= 2
    assert values["elle_ledger_rows"][("dropped",)] == 0
    assert values["elle_ledger_down"][()] == 0
    assert {"elle_ledger_lag_seconds", "elle_ledger_spool_bytes", "elle_ledger_waiting_rows"} <= values.keys()


def test_an_authority_that_nobody_knows_is_refused_over_grpc_and_none_is_the_usual_one() -> None:
    message = pb.FeedbackRequest(decision_id=new_id(), kind=pb.FEEDBACK_KIND_CHECK)
    assert piece_from_wire(message).said_by is FeedbackAuthority.VERIFIER
    message.authority = 77  # type: ignore[assignment]
    with pytest.raises(InvalidRequestError, match="authority must be one of user, judge, reviewer, verifier"):
        piece_from_wire(message)


@pytest.mark.parametrize(("names", "got"), [({}, "none"), ({"decision_id": "d", "request_id": "r"}, "both")])
def test_exactly_one_id_must_name_the_decision(names: dict[str, str], got: str) -> None:
    with pytest.raises(
        InvalidRequestError, match=f"exactly one of decision_id and request_id must be given, got {got}"
    ):
        FeedbackPiece(FeedbackKind.THUMB, 1.0, **names)
