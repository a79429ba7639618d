"""Faults of a real upstream through the OpenAI door: an answer from an allowed candidate or an OpenAI error object,
with every attempt in the record. tests/router/answering/faults has more of them, over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.gateways.loopback import in_thread
from tests.router.fault_policies import BREAKS_OFF, CASES, METHODS, PROMPT, A, expected_of, write_policies
from tests.router.faults import BIG, TEXT, FaultyUpstream, upstream_in_thread

#: The faults that the door must survive.
NAMED = {"429-wait", "402", "500", "hang", "slow-first-token", "reset", "reset-early", "tcp-reset", "malformed", "html"}
DOOR_CASES = [(fault, method) for fault, method in CASES if fault in NAMED]
FAULTS = [*NAMED, *BREAKS_OFF, "big", "ok", "400", "endless"]

STATUS = {
    A.RATE_LIMITED: (429, "upstream_rate_limited"),
    A.DENIED: (502, "upstream_denied"),
    A.UNAVAILABLE: (503, "upstream_unavailable"),
    A.TIMED_OUT: (504, "upstream_timeout"),
}


@dataclass(frozen=True)
class Answer:
    """What a client sees of a chat; `record` is the field `elle`."""

    status: int
    headers: httpx.Headers
    text: str
    record: dict[str, Any]
    error: dict[str, Any] | None
    ended: bool

    @property
    def tried(self) -> list[tuple[str, str]]:
        return [(one["candidate"], one["outcome"]) for one in self.record["attempts"]]


@dataclass(frozen=True)
class Stack:
    url: str
    upstream: FaultyUpstream

    def ask(self, policy: str, method: str, deadline_s: float = 10) -> Answer:
        streamed = method == "stream"
        body = {"model": f"elle/{policy}", "messages": [{"role": "user", "content": PROMPT}], "stream": streamed}
        # The client's own patience is longer: whoever is late fails here, and is not waited for.
        headers, patience_s = {"x-elle-timeout-s": str(deadline_s)}, deadline_s + 5
        reply = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=patience_s)
        # What a provider says comes back only where it says what is wrong with the request.
        assert ("SECRET" in reply.text) is policy.startswith("400")
        if reply.headers["content-type"] == "application/json":
            whole = reply.json()
            text = whole["choices"][0]["message"]["content"] if "choices" in whole else ""
            return Answer(reply.status_code, reply.headers, text, whole["elle"], whole.get("error"), ended=True)
        lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line[:1] not in ("", ":")]
        chunks = [json.loads(line) for line in lines if line != "[DONE]"]
        deltas = [choice["delta"].get("content") for chunk in chunks for choice in chunk.get("choices", ())]
        record = next(chunk["elle"] for chunk in reversed(chunks) if "attempts" in chunk["elle"])
        text, error = "".join(delta or "" for delta in deltas), chunks[-1].get("error")
        return Answer(reply.status_code, reply.headers, text, record, error, ended=lines[-1] == "[DONE]")


@pytest.fixture(scope="module")
def stack(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with upstream_in_thread() as (upstream, resetting):
        paths = write_policies(tmp_path_factory.mktemp("policies"), FAULTS, upstream, resetting)
        settings = ServerSettings(policies=paths, port=0, drain_s=1, http=HttpGateway())
        with in_thread(serving(settings)) as running:
            stack = Stack(f"http://{running.http_address}", upstream)
            stack.ask("ok-unary", "unary", deadline_s=60)  # with it comes LiteLLM's import
            yield stack


@pytest.mark.parametrize(("fault", "method"), DOOR_CASES)
def test_the_candidate_above_answers_and_the_record_says_after_what(stack: Stack, fault: str, method: str) -> None:
    answer = stack.ask(f"{fault}-{method}", method)
    assert (answer.status, answer.text, answer.error, answer.ended) == (200, TEXT, None, True)
    assert (answer.record["answered_by"], answer.record["fell_back"]) == ("strong", True)
    tried = [*(("weak", outcome.value) for outcome in expected_of(fault, method)), ("strong", "ANSWERED")]
    assert answer.tried == tried
    assert answer.headers["x-elle-attempts"] == ",".join("=".join(one) for one in tried)


@pytest.mark.parametrize(("fault", "method"), DOOR_CASES)
def test_the_candidate_below_is_never_asked_and_the_error_object_is_clear(
    stack: Stack, fault: str, method: str
) -> None:
    answer = stack.ask(f"floor-{fault}-{method}", method)
    assert stack.upstream.of(f"ok@floor-{fault}-{method}") == []
    expected = expected_of(fault, method)
    assert answer.tried == [("strong", outcome.value) for outcome in expected]
    assert answer.error is not None
    assert (answer.status, answer.error["code"]) == STATUS[expected[-1]]
    assert answer.error["message"]
    assert answer.headers["x-elle-candidate"] == "strong"
    assert answer.headers.get("retry-after") == ("7" if fault == "429-wait" else None)


@pytest.mark.parametrize("method", METHODS)
def test_what_the_request_itself_is_to_blame_for_fails_at_once(stack: Stack, method: str) -> None:
    answer = stack.ask(f"400-{method}", method)
    assert answer.error is not None
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert answer.tried == [("weak", "REJECTED")]
    assert stack.upstream.of(f"ok@400-{method}") == []


@pytest.mark.parametrize("fault", BREAKS_OFF)
def test_a_stream_that_breaks_off_ends_with_an_error_event_and_nobody_takes_over(stack: Stack, fault: str) -> None:
    answer = stack.ask(f"{fault}-stream", "stream")
    assert (answer.status, answer.text, answer.ended) == (200, "forty-", False)
    assert answer.error is not None
    assert answer.error["code"] == "upstream_interrupted"
    assert answer.tried == [("weak", "INTERRUPTED")]
    assert stack.upstream.of(f"ok@{fault}-stream") == []


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_of_ten_megabytes_arrives_whole(stack: Stack, method: str) -> None:
    answer = stack.ask(f"big-{method}", method, deadline_s=60)
    assert (answer.status, len(answer.text), answer.ended) == (200, BIG, True)
    assert answer.tried == [("weak", "ANSWERED")]


def test_the_deadline_ends_an_endless_stream_with_an_error_event(stack: Stack) -> None:
    answer = stack.ask("endless-stream", "stream", deadline_s=1)
    assert answer.text.startswith("and ")
    assert answer.error is not None
    assert (answer.error["code"], answer.ended) == ("upstream_timeout", False)
    assert answer.tried == [("weak", "TIMED_OUT")]
