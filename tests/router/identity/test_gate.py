"""The gate: who is let in, what is remembered of them, and how soon a revoked token is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from router.errors import ForbiddenError, UnauthenticatedError
from router.identity.counts import DoorName, Refusal
from router.identity.gate import OPEN_GATE, Gate, IdentitySettings, credential_of
from router.identity.http_guard import requiring_scope
from router.identity.method_scopes import ANSWERING, DECIDING, RUNNING, needed_for
from router.identity.principal import ANYBODY, Scope, caller_key, current_principal
from router.identity.token_book import changing, now_utc
from router.pb import router_service_pb2 as pb
from router.serving.ports import ServicePorts
from router.serving.settings import ServerSettings
from router.watched_files import kept_fresh
from tests.router.identity.guarded import add_token


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, ""),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer   abc "}, "abc"),
        ({"authorization": "Basic abc"}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": "abc"}, ""),
        ({"x-api-key": "abc"}, "abc"),
        ({"api-key": " abc"}, "abc"),
        ({"authorization": "Basic x", "x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer one", "x-api-key": "two"}, "one"),
    ],
)
def test_where_a_token_may_stand(headers: Mapping[str, str], found: str) -> None:
    assert credential_of(headers) == found


def test_an_open_gate_asks_nobody() -> None:
    assert OPEN_GATE.admit(DoorName.GRPC, {}, RUNNING) is ANYBODY
    assert not OPEN_GATE.is_on


def test_whoever_is_let_in_is_remembered_for_the_request_and_told_apart_by_the_token(tmp_path: Path) -> None:
    text, token = add_token(tmp_path / "tokens.json", "a")
    gate = Gate(IdentitySettings(tmp_path / "tokens.json"))
    headers = {"x-api-key": text}
    before = caller_key(headers)
    assert text not in before
    mark = current_principal.set(ANYBODY)
    try:
        assert gate.admit(DoorName.HTTP, headers, ANSWERING).id == f"token:{token.id}"
        assert caller_key(headers) == f"token:{token.id}"
        assert caller_key({"authorization": f"Bearer {text}"}) == f"token:{token.id}"
    finally:
        current_principal.reset(mark)
    assert caller_key(headers) == before


def test_a_token_expires_while_the_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text, token = add_token(path, "a")
    with changing(path) as known:
        known[0] = token.model_copy(update={"expires_at": now_utc() + datetime.timedelta(seconds=100)})
    clock = [time.time()]
    gate = Gate(IdentitySettings(path), now=lambda: clock[0])
    gate.admit(DoorName.GRPC, {"x-api-key": text}, DECIDING)
    clock[0] += 101
    with pytest.raises(UnauthenticatedError, match="expired"):
        gate.admit(DoorName.GRPC, {"x-api-key": text}, DECIDING)


async def test_a_revoked_token_is_refused_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.watched_files.keep_fresh.__defaults__", (0.01,))
    path = tmp_path / "tokens.json"
    text, token = add_token(path, "a")
    gate = Gate(IdentitySettings(path))
    async with kept_fresh(gate.watched_with(None)):
        gate.admit(DoorName.GRPC, {"x-api-key": text}, DECIDING)
        with changing(path) as known:
            known[0] = token.model_copy(update={"revoked_at": now_utc()})
        while gate.counts.snapshot()[DoorName.GRPC, Refusal.REVOKED] == 0:
            with contextlib.suppress(UnauthenticatedError):
                gate.admit(DoorName.GRPC, {"x-api-key": text}, DECIDING)
            await asyncio.sleep(0.01)


def test_methods_that_nobody_named_need_the_scope_admin() -> None:
    service = pb.DESCRIPTOR.services_by_name["RouterService"]
    for method in ("Route", "BatchRoute", "Complete", "StreamComplete", "GetPolicy"):
        assert method in service.methods_by_name
        assert needed_for(service.full_name, method) != RUNNING
    assert needed_for(service.full_name, "Activate") == RUNNING
    assert needed_for("elle.router.v1.AdminService", "Activate") == RUNNING
    assert needed_for("grpc.health.v1.Health", "Watch") is None


async def ask(app: Any, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "headers": raw}, None, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0].get("headers", ())}


async def test_an_application_behind_the_guard_is_reached_with_the_scope_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    admin, _ = add_token(path, "admin", Scope.ADMIN)
    other, _ = add_token(path, "other", Scope.ROUTE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert current_principal.get().label == "admin"
        await send({"type": "http.response.start", "status": 200})

    gate = Gate(IdentitySettings(path))
    guarded = requiring_scope(app, gate, Scope.ADMIN)

    def basic(password: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}

    assert [(await ask(guarded, headers))[0] for headers in ({"authorization": f"Bearer {admin}"}, basic(admin))] == [
        200,
        200,
    ]
    status, headers = await ask(guarded, {})
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="ELLE Router", charset="UTF-8"')
    for wrong in (basic("x"), {"authorization": "Basic !"}, {"authorization": "Basic /w=="}):
        assert (await ask(guarded, wrong))[0] == 401
    assert (await ask(guarded, basic(other)))[0] == 403
    counts = gate.counts.snapshot()
    assert counts[DoorName.ADMIN, Refusal.WRONG_SCOPE] == 1
    assert counts[DoorName.ADMIN, Refusal.NO_TOKEN] + counts[DoorName.ADMIN, Refusal.UNKNOWN_TOKEN] == 4


def test_a_token_of_another_scope_hears_which_one_is_needed(tmp_path: Path) -> None:
    text, _ = add_token(tmp_path / "tokens.json", "a", Scope.FEEDBACK)
    gate = Gate(IdentitySettings(tmp_path / "tokens.json"))
    with pytest.raises(ForbiddenError, match="scope route for this call, and it has feedback"):
        gate.admit(DoorName.GRPC, {"x-api-key": text}, DECIDING)


async def test_without_tokens_nobody_but_this_machine_runs_the_service() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    def ports(host: str) -> ServicePorts:
        return ServicePorts(ServerSettings(host=host, insecure=True))

    for host, status in (("127.0.0.1", 200), ("0.0.0.0", 401)):
        gate = ports(host).gate
        assert (await ask(requiring_scope(app, gate, Scope.ADMIN), {}))[0] == status
        assert gate.admit(DoorName.GRPC, {}, DECIDING) is ANYBODY
