"""Each door against each kind of caller: the right status, in the format of the door, and counted."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest

from router.gateways.http.http_application import AZURE_PATHS, POST_PATHS
from router.identity.counts import DoorName, Refusal
from router.identity.principal import Scope
from router.serving.grpc_options import MAX_REQUEST_BYTES
from tests.router.identity.guarded import (
    ADMIN_METHODS,
    BODIES,
    ROUTER_METHODS,
    Guarded,
    add_token,
    grpc_status,
    guarded_service,
    http_answer,
)

METHODS = (*ROUTER_METHODS, *ADMIN_METHODS, "Reflection")
#: A scope that opens a method, if it is not `route`, and one that does not. Reflection takes any.
RIGHT = {"Complete": "complete", "StreamComplete": "complete", "Feedback": "feedback"}
RIGHT |= dict.fromkeys(ADMIN_METHODS, "admin")
WRONG = {"Route": "complete", "BatchRoute": "feedback", "Complete": "route", "StreamComplete": "route"}
WRONG |= {"Feedback": "complete", "GetPolicy": "feedback", **dict.fromkeys(ADMIN_METHODS, "complete")}
FEEDBACK = "/v1/feedback"
ASKED_ALONE = ("/v1/systemone", "/v1/decisions", "/v1/models", "/v1/models/test")

REFUSED = (
    ("nothing", Refusal.NO_TOKEN),
    ("unknown", Refusal.UNKNOWN_TOKEN),
    ("garbage", Refusal.UNKNOWN_TOKEN),
    ("expired", Refusal.EXPIRED),
    ("revoked", Refusal.REVOKED),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_service(tmp_path_factory.mktemp("guarded")) as running:
        yield running


def right_scope(path: str) -> str:
    return "feedback" if path == FEEDBACK else "route" if path in ASKED_ALONE else "complete"


def bearer(service: Guarded, kind: str) -> dict[str, str]:
    return {} if kind == "nothing" else {"authorization": f"Bearer {service.texts[kind]}"}


def counted(service: Guarded, door: DoorName, reason: Refusal) -> int:
    return service.gate.counts.snapshot()[door, reason]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "reason"), REFUSED)
def test_grpc_refuses_who_has_no_valid_token(service: Guarded, method: str, kind: str, reason: Refusal) -> None:
    before = counted(service, DoorName.GRPC, reason)
    code, message = grpc_status(service, method, bearer(service, kind))
    assert code == "UNAUTHENTICATED"
    assert service.texts.get(kind, "nothing") not in message
    assert counted(service, DoorName.GRPC, reason) == before + 1


@pytest.mark.parametrize("method", METHODS)
def test_grpc_lets_in_who_has_the_scope(service: Guarded, method: str) -> None:
    code, message = grpc_status(service, method, bearer(service, RIGHT.get(method, "route")))
    # What is asked may not suit the service; whoever is let in hears about that, and not about tokens.
    assert code not in {"UNAUTHENTICATED", "PERMISSION_DENIED"}, message
    assert (code == "OK") == (method not in {"Feedback", "ActivatePolicy", "RollbackPolicy"}), message


def test_every_method_but_reflection_has_a_scope_that_does_not_open_it() -> None:
    assert set(METHODS) - {"Reflection"} == set(WRONG)


@pytest.mark.parametrize(("method", "scope"), WRONG.items())
def test_grpc_refuses_another_scope(service: Guarded, method: str, scope: str) -> None:
    before = counted(service, DoorName.GRPC, Refusal.WRONG_SCOPE)
    code, message = grpc_status(service, method, bearer(service, scope))
    assert code == "PERMISSION_DENIED"
    assert "must have the scope" in message
    assert counted(service, DoorName.GRPC, Refusal.WRONG_SCOPE) == before + 1


def test_health_needs_no_token(service: Guarded) -> None:
    assert grpc_status(service, "Health", {}) == ("OK", "")
    assert grpc_status(service, "Health", bearer(service, "garbage")) == ("OK", "")


def test_every_path_of_the_http_door_is_in_the_table() -> None:
    served = {*POST_PATHS, *(path.replace("{model:path}", "test") for path in AZURE_PATHS)}
    assert served == {path for path, body in BODIES.items() if body is not None}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("kind", "reason"), REFUSED)
def test_http_refuses_who_has_no_valid_token(service: Guarded, path: str, kind: str, reason: Refusal) -> None:
    before = counted(service, DoorName.HTTP, reason)
    answer = http_answer(service, path, bearer(service, kind))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    if path.startswith("/v1/messages"):
        assert (answer.json()["type"], error["type"]) == ("error", "authentication_error")
    else:
        assert error["code"] == "invalid_api_key"
    assert service.texts.get(kind, "nothing") not in answer.text
    assert counted(service, DoorName.HTTP, reason) == before + 1


@pytest.mark.parametrize("path", BODIES)
def test_http_refuses_another_scope(service: Guarded, path: str) -> None:
    before = counted(service, DoorName.HTTP, Refusal.WRONG_SCOPE)
    answer = http_answer(service, path, bearer(service, "route" if path == FEEDBACK else "feedback"))
    assert answer.status_code == 403
    if path.startswith("/v1/messages"):
        assert answer.json()["error"]["type"] == "permission_error"
    assert counted(service, DoorName.HTTP, Refusal.WRONG_SCOPE) == before + 1


@pytest.mark.parametrize("path", BODIES)
def test_http_lets_in_who_has_the_scope(service: Guarded, path: str) -> None:
    answer = http_answer(service, path, bearer(service, right_scope(path)))
    # What is asked may not suit the policy; whoever is let in hears about that, and not about tokens.
    assert answer.status_code not in {401, 403}, answer.text


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
def test_http_takes_the_token_as_the_sdks_of_anthropic_and_azure_send_it(service: Guarded, header: str) -> None:
    assert http_answer(service, "/v1/models", {header: service.texts["route"]}).status_code == 200
    assert http_answer(service, "/v1/models", {header: service.texts["unknown"]}).status_code == 401


def test_http_says_to_everybody_that_it_is_healthy(service: Guarded) -> None:
    assert httpx.get(service.http_url + "/healthz").status_code == 200


@pytest.mark.parametrize("path", [path for path, body in BODIES.items() if body is not None])
def test_http_refuses_and_counts_a_body_that_is_too_long(service: Guarded, path: str) -> None:
    before = counted(service, DoorName.HTTP, Refusal.OVERSIZED)
    kind = {"content-type": "application/json", **bearer(service, right_scope(path))}
    answer = httpx.post(service.http_url + path, content=b" " * 100_001, headers=kind)
    assert answer.status_code == 413
    assert counted(service, DoorName.HTTP, Refusal.OVERSIZED) == before + 1


@pytest.mark.parametrize("method", METHODS)
def test_grpc_refuses_and_counts_a_message_that_is_too_long(service: Guarded, method: str) -> None:
    before = counted(service, DoorName.GRPC, Refusal.OVERSIZED)
    metadata = tuple(bearer(service, RIGHT.get(method, "route")).items())
    with grpc.insecure_channel(service.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream(full_name(method))
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([bytes(MAX_REQUEST_BYTES + 1)]), metadata=metadata, timeout=60))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert counted(service, DoorName.GRPC, Refusal.OVERSIZED) == before + 1


def full_name(method: str) -> str:
    if method == "Reflection":
        return "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    return f"/elle.router.v1.{'AdminService' if method in ADMIN_METHODS else 'RouterService'}/{method}"


@pytest.mark.parametrize("path", [path for path, body in BODIES.items() if body is not None])
@pytest.mark.parametrize(("kind", "status"), [("nothing", 401), ("expired", 401), ("admin", 403)])
def test_a_body_that_is_too_long_is_not_even_read_of_a_caller_who_may_not_send_it(
    service: Guarded, path: str, kind: str, status: int
) -> None:
    before = counted(service, DoorName.HTTP, Refusal.OVERSIZED)
    headers = {"content-type": "application/json", **bearer(service, kind)}
    answer = httpx.post(service.http_url + path, content=b" " * 100_001, headers=headers)
    assert answer.status_code == status
    assert counted(service, DoorName.HTTP, Refusal.OVERSIZED) == before


@pytest.fixture(scope="module")
def used_up(service: Guarded) -> dict[str, str]:
    """Return the headers of a caller that may do everything, and has sent the only request of this minute."""
    text, _ = add_token(service.tokens, "used up", *Scope, requests_per_minute=1)
    service.gate.refresh()
    headers = {"authorization": f"Bearer {text}"}
    assert http_answer(service, "/v1/models", headers).status_code == 200
    return headers


@pytest.mark.parametrize("path", BODIES)
def test_http_refuses_and_counts_whoever_is_over_its_limit(
    service: Guarded, path: str, used_up: dict[str, str]
) -> None:
    before = counted(service, DoorName.HTTP, Refusal.OVER_RATE)
    answer = http_answer(service, path, used_up)
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert (answer.json().get("type") == "error") == path.startswith("/v1/messages")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert counted(service, DoorName.HTTP, Refusal.OVER_RATE) == before + 1


@pytest.mark.parametrize("method", METHODS)
def test_grpc_refuses_and_counts_whoever_is_over_its_limit(
    service: Guarded, method: str, used_up: dict[str, str]
) -> None:
    before = counted(service, DoorName.GRPC, Refusal.OVER_RATE)
    code, message = grpc_status(service, method, used_up)
    assert code == "RESOURCE_EXHAUSTED"
    assert "the limit of this token" in message
    assert counted(service, DoorName.GRPC, Refusal.OVER_RATE) == before + 1
