"""The methods of `elle.router.v1.AdminService`: reload, list the versions of policies, activate one, and go back."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable

import grpc.aio

from router.deciding.pipeline import Router
from router.errors import ConfigError, InvalidRequestError
from router.identity.principal import current_principal
from router.pb import admin_service_pb2 as pb
from router.pb import admin_service_pb2_grpc as pb_grpc
from router.policies.loading import ServedPolicy
from router.serving.reloading.reloader import Reloader, ReloadOutcome
from router.versions.store import (
    ChangeRequest,
    VersionStore,
    activate,
    find_version,
    load_versions,
    roll_back,
    versions_by_id,
)
from router.versions.trail import Change
from router.wire.request_reader import Context
from router.wire.statuses import still_loading

#: The full name of the service, as reflection knows it.
ADMIN_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AdminService"].full_name


class AdminService(pb_grpc.AdminServiceServicer):
    """Implements the gRPC service `elle.router.v1.AdminService`.

    Its methods need the scope `admin`, which the guard of the gRPC server checks. Until `start` is called every method
    answers UNAVAILABLE.

    store: the store of versions; None if the service serves files.
    """

    def __init__(self, store: VersionStore | None) -> None:
        self._store = store
        self._reloader: Reloader | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add this service to a gRPC server that has not started, and that checks who calls."""
        pb_grpc.add_AdminServiceServicer_to_server(self, server)

    def start(self, reloader: Reloader) -> None:
        """Begin to answer, with what replaces the policies."""
        self._reloader = reloader

    async def Reload(self, request: pb.ReloadRequest, context: Context) -> pb.ReloadResponse:  # noqa: N802
        """Load the policies again in this process and in its siblings."""
        reloader = self._started
        outcome = await reloader.replace(reloader.load, f"Reload by {_author()}")
        _tell_siblings()
        return pb.ReloadResponse(replaced=outcome is ReloadOutcome.REPLACED, served=_served(reloader.current.router))

    async def ListVersions(  # noqa: N802
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListVersionsResponse:
        """List the versions in the store, and what this process decides by."""
        served = _served(self._started.current.router)
        stored = [] if self._store is None else await asyncio.to_thread(_stored, self._store)
        return pb.ListVersionsResponse(versions=stored, served=served)

    async def ActivatePolicy(  # noqa: N802
        self, request: pb.ActivatePolicyRequest, context: Context
    ) -> pb.ActivatePolicyResponse:
        """Check a version, make it the active one of its policy, and serve it."""
        store, wish = self._opened, _wish(request.reason, request.expected if request.HasField("expected") else None)
        version = await asyncio.to_thread(find_version, store, request.version)
        change = await self._change(store, version.name, version.id, lambda: activate(store, version, wish))
        return pb.ActivatePolicyResponse(change=_change_to_wire(change))

    async def RollbackPolicy(  # noqa: N802
        self, request: pb.RollbackPolicyRequest, context: Context
    ) -> pb.RollbackPolicyResponse:
        """Go back to the version that was active before the one that is."""
        store, wish = self._opened, _wish(request.reason, request.expected if request.HasField("expected") else None)
        before = (await asyncio.to_thread(store.trail)).before(request.policy)
        change = await self._change(store, request.policy, before, lambda: roll_back(store, request.policy, wish))
        return pb.RollbackPolicyResponse(change=_change_to_wire(change))

    async def _change(self, store: VersionStore, policy: str, version_id: str, swap: Callable[[], Change]) -> Change:
        """Check what would be served, then change the store, then serve it. If one fails, the next does not happen."""
        made: list[Change] = []
        load = functools.partial(_load_with, store, policy, version_id)
        await self._started.replace(load, f"change by {_author()}", commit=lambda: made.append(swap()))
        _tell_siblings()
        return made[0]

    @property
    def _started(self) -> Reloader:
        if self._reloader is None:
            raise still_loading()
        return self._reloader

    @property
    def _opened(self) -> VersionStore:
        if self._store is None:
            raise ConfigError("the service serves files and has no store; start it with --store to activate versions.")
        return self._store


def _load_with(store: VersionStore, policy: str, version_id: str) -> tuple[ServedPolicy, ...]:
    """Return what is served once a version is active. Without a version it is what is active now."""
    active = dict(store.trail().active)
    if version_id:
        active[policy] = version_id
    return load_versions(store, active.values())


def _tell_siblings() -> None:
    """Let the parent of a worker tell all workers to reload. A process that serves alone has none."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        os.kill(parent.pid, signal.SIGHUP)


def _author() -> str:
    principal = current_principal.get()
    return f"{principal.label} ({principal.id})" if principal.id else principal.label


def _wish(reason: str, expected: str | None) -> ChangeRequest:
    try:
        return ChangeRequest(_author(), reason, expected)
    except ConfigError as error:
        raise InvalidRequestError(str(error), field="reason" if "reason" in str(error) else "expected") from error


def _served(router: Router) -> list[pb.ServedVersion]:
    return [
        pb.ServedVersion(
            policy=name,
            policy_digest=policy.ref.digest,
            probe_digest=policy.probe_ref.digest if policy.probe_ref else "",
        )
        for name, policy in router.policies.items()
    ]


def _stored(store: VersionStore) -> list[pb.StoredVersion]:
    active = store.trail().active
    return [
        pb.StoredVersion(
            id=one.id,
            policy=one.name,
            policy_digest=one.policy_digest,
            probe_digest=one.probe_digest,
            active=one.id in active.values(),
        )
        for one in versions_by_id(store, active).values()
    ]


def _change_to_wire(change: Change) -> pb.PolicyChange:
    return pb.PolicyChange(
        number=change.number,
        policy=change.policy,
        before=change.before,
        after=change.after,
        author=change.author,
        at=change.at,
    )
