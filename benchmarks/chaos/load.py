"""Ask a service all the time, and note what it has said (`Load`)."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

import grpc

from benchmarks.chaos.service import DEFAULT, STRICT, TURNS, Service, channel
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc

#: Callers, the seconds from one call of a caller to its next one, and the calls that one connection lasts.
CALLERS, EVERY_S, CALLS_OF_A_CONNECTION = 4, 0.05, 10

#: The seconds that a caller waits for a decision and for an answer.
DECISION_S, ANSWER_S = 2.0, 6.0


@dataclass(frozen=True)
class Reply:
    """Holds what a caller was told about one request."""

    at: float
    method: str
    policy: str
    decision_id: str
    digest: str
    chosen: str
    reason: int


class Load:
    """Asks a service in several threads between `start` and `stop`.

    Attributes:
        replies: the decisions and answers that callers have got.
        feedback: the decision of each piece of feedback that was acknowledged, by the id of the piece.
        accepted: decisions that the ledger had when feedback on them came.
        errors: failed calls by method, policy and status, each with the times when it came.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.replies: list[Reply] = []
        self.feedback: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.errors: list[tuple[float, str, str, str]] = []
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        self._ended.clear()
        self._threads = [threading.Thread(target=self._call, name=f"caller {n}") for n in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop asking, and wait for what is under way."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def failed(self, began: float, ended: float, method: str = "Route") -> Counter[str]:
        """Count the failed calls of a method between two times, by policy and status."""
        return Counter(
            f"{policy} {code}" for at, name, policy, code in self.errors if name == method and began <= at <= ended
        )

    def _call(self) -> None:
        unsent: list[tuple[str, str]] = []
        policies = itertools.cycle((DEFAULT, TURNS, STRICT))
        while not self._ended.is_set():
            with channel(self._service.address) as opened:
                stub = pb_grpc.RouterServiceStub(opened)
                for number in range(CALLS_OF_A_CONNECTION):
                    if self._ended.wait(EVERY_S) or not self._one(stub, number, next(policies), unsent):
                        break

    def _one(self, stub: Any, number: int, policy: str, unsent: list[tuple[str, str]]) -> bool:
        """Make the next call of a connection. Return whether it was answered."""
        if number % 3 == 2 and unsent:
            return self._give_feedback(stub, unsent)
        method = "Complete" if number % 5 == 4 else "Route"
        return self._ask(stub, method, policy, unsent)

    def _ask(self, stub: Any, method: str, policy: str, unsent: list[tuple[str, str]]) -> bool:
        # No two prompts are alike, so that each one is judged anew.
        route = pb.RouteRequest(prompt=f"Is {uuid.uuid4().int} prime?")
        route.overrides.policy = policy
        request, wait_s = (route, DECISION_S) if method == "Route" else (pb.CompleteRequest(route=route), ANSWER_S)
        try:
            said = getattr(stub, method)(
                request, timeout=wait_s, metadata=[("x-request-id", uuid.uuid4().hex)]
            ).decision
        except grpc.RpcError as error:
            self._note(method, policy, error)
            # A policy that refuses has answered.
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        reply = Reply(time.monotonic(), method, policy, said.decision_id, said.policy.digest, said.chosen, said.reason)
        self.replies.append(reply)
        unsent.append((said.decision_id, uuid.uuid4().hex))
        return True

    def _give_feedback(self, stub: Any, unsent: list[tuple[str, str]]) -> bool:
        """Give feedback under a key that stays when it is sent again."""
        decision_id, key = unsent.pop(0)
        request = pb.FeedbackRequest(
            decision_id=decision_id, kind=pb.FEEDBACK_KIND_THUMB, value=1.0, idempotency_key=key
        )
        try:
            said = stub.Feedback(request, timeout=DECISION_S)
        except grpc.RpcError as error:
            self._note("Feedback", "", error)
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                unsent.append((decision_id, key))
                return False
            return True
        self.feedback[said.feedback_id] = decision_id
        if said.status in (pb.FEEDBACK_STATUS_ACCEPTED, pb.FEEDBACK_STATUS_DISPUTED):
            self.accepted.add(decision_id)
        return True

    def _note(self, method: str, policy: str, error: grpc.RpcError) -> None:
        self.errors.append((time.monotonic(), method, policy, error.code().name))
