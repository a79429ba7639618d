"""AdminService changes what a running service decides by, for callers with the scope `admin` and for nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import yaml

from router.identity.gate import IdentitySettings
from router.identity.principal import Scope
from router.pb import admin_service_pb2 as admin_pb
from router.pb import admin_service_pb2_grpc as admin_grpc
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.versions.directory_store import DirectoryStore
from router.versions.store import ChangeRequest, activate
from router.versions.version import PolicyVersion, read_contents
from tests.fakes import write_policy
from tests.router.identity.guarded import add_token

FIXED = {"kind": "fixed", "candidate": "small"}


class Admin:
    """Calls AdminService with a token, and Route with another one."""

    def __init__(self, channel: grpc.aio.Channel, tokens: dict[Scope, str]) -> None:
        self._admin: Any = admin_grpc.AdminServiceStub(channel)
        self._router: Any = pb_grpc.RouterServiceStub(channel)
        self._tokens = tokens

    def call(self, method: str, scope: Scope | None = Scope.ADMIN, **fields: Any) -> Awaitable[Any]:
        request = getattr(admin_pb, f"{method}Request")(**fields)
        return getattr(self._admin, method)(request, metadata=self._metadata(scope))  # type: ignore[no-any-return]

    async def status_of(self, method: str, scope: Scope | None = Scope.ADMIN, **fields: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, scope, **fields)
        return caught.value.code()

    async def digest(self) -> str:
        answer = await self._router.Route(pb.RouteRequest(prompt="x"), metadata=self._metadata(Scope.ROUTE))
        return str(answer.decision.policy.digest)

    def _metadata(self, scope: Scope | None) -> tuple[tuple[str, str], ...]:
        return () if scope is None else (("authorization", f"Bearer {self._tokens[scope]}"),)


def kept_versions(folder: Path) -> tuple[DirectoryStore, list[PolicyVersion]]:
    """Make a store with three versions, of which the first one is active."""
    path, store, versions = write_policy(folder, probe=None, rule=FIXED), DirectoryStore(folder / "store"), []
    for number in range(3):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | {"version": str(number)}), "utf-8")
        versions.append(store.add(*read_contents(path)))
    activate(store, versions[0], ChangeRequest("me", "it begins"))
    return store, versions


@contextlib.asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[Admin]:
    (folder / "tokens.json").unlink(missing_ok=True)
    tokens = {scope: add_token(folder / "tokens.json", f"{scope.value}s", scope)[0] for scope in Scope}
    given = {"port": 0, "drain_s": 1.0, "identity": IdentitySettings(folder / "tokens.json")} | settings
    async with serving(ServerSettings(**given)) as running, grpc.aio.insecure_channel(running.address) as channel:
        yield Admin(channel, tokens)


async def test_versions_are_activated_and_taken_back_and_serve_at_once(tmp_path: Path) -> None:
    store, versions = kept_versions(tmp_path)
    async with served(tmp_path, store=tmp_path / "store") as admin:
        answer = await admin.call("ActivatePolicy", version=versions[1].id[:12], reason="better")
        assert (answer.change.before, answer.change.after) == (versions[0].id, versions[1].id)
        assert answer.change.author.startswith("admins (token:")
        assert await admin.digest() == versions[1].policy_digest
        wrong = {"version": versions[2].id, "reason": "why", "expected": versions[0].id}
        assert await admin.status_of("ActivatePolicy", **wrong) is grpc.StatusCode.ABORTED
        assert await admin.digest() == versions[1].policy_digest
        back = await admin.call("RollbackPolicy", policy="test", reason="worse", expected=versions[1].id)
        assert back.change.after == versions[0].id
        assert await admin.digest() == versions[0].policy_digest
        listed = await admin.call("ListVersions")
        assert {one.id for one in listed.versions if one.active} == {versions[0].id}
        assert [one.policy_digest for one in listed.served] == [versions[0].policy_digest]
        # What an operator activates beside the service is taken on Reload.
        activate(store, versions[2], ChangeRequest("me", "by hand"))
        assert (await admin.call("Reload")).replaced
        assert not (await admin.call("Reload")).replaced
        assert await admin.digest() == versions[2].policy_digest
    assert [change.reason for change in store.trail().changes] == ["it begins", "better", "worse", "by hand"]


async def test_what_cannot_be_served_changes_nothing(tmp_path: Path) -> None:
    store, versions = kept_versions(tmp_path)
    async with served(tmp_path, store=tmp_path / "store") as admin:
        store.open(versions[1].id).policy.write_text("damaged", "utf-8")
        for fields, status in (
            ({"version": versions[1].id, "reason": "why"}, grpc.StatusCode.FAILED_PRECONDITION),
            ({"version": "0" * 12, "reason": "why"}, grpc.StatusCode.NOT_FOUND),
            ({"version": versions[2].id, "reason": " "}, grpc.StatusCode.INVALID_ARGUMENT),
            ({"version": versions[0].id, "reason": "again"}, grpc.StatusCode.ABORTED),
        ):
            assert await admin.status_of("ActivatePolicy", **fields) is status
        assert await admin.status_of("RollbackPolicy", policy="test", reason="why") is grpc.StatusCode.ABORTED
        assert await admin.digest() == versions[0].policy_digest
    assert len(store.trail().changes) == 1


async def test_only_the_scope_admin_opens_it_and_without_tokens_there_is_none(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=FIXED)
    methods = ("Reload", "ListVersions", "ActivatePolicy", "RollbackPolicy")
    async with served(tmp_path, policies=(path,)) as admin:
        for method in methods:
            assert await admin.status_of(method, None) is grpc.StatusCode.UNAUTHENTICATED
            for scope in set(Scope) - {Scope.ADMIN}:
                assert await admin.status_of(method, scope) is grpc.StatusCode.PERMISSION_DENIED
        assert [one.policy for one in (await admin.call("ListVersions")).served] == ["test"]
        no_store = await admin.status_of("ActivatePolicy", version="0" * 12, reason="why")
        assert no_store is grpc.StatusCode.FAILED_PRECONDITION
        path.write_text("broken", "utf-8")
        assert await admin.status_of("Reload") is grpc.StatusCode.FAILED_PRECONDITION
    write_policy(tmp_path, probe=None, rule=FIXED)
    async with served(tmp_path, policies=(path,), identity=IdentitySettings()) as admin:
        for method in methods:
            assert await admin.status_of(method) is grpc.StatusCode.UNIMPLEMENTED
