"""Decide and answer in a replica of Ray Serve (`Replica`): load, take the policies of `user_config`, end in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.errors import ProbesError
from router.errors import ConfigError, RouterError
from router.feedback.desk import FeedbackDesk
from router.identity.gate import Gate
from router.intake.bounds import Intake
from router.intake.in_flight import InFlight
from router.ledger.opening import open_ledger
from router.observing.logs import configure_logging
from router.policies.loading import DEFAULT_POLICY, load_policies
from router.serving.on_ray.proxied_call import EncodedAnswer, ProxiedMethods
from router.serving.reloading.first_load import loaded
from router.serving.reloading.in_force import InForce
from router.serving.reloading.reloader import Reloader
from router.serving.settings import ServerSettings
from router.watched_files import kept_fresh
from router.wire.servicer import RouterService

#: Seconds in which the ledger writes what waits when a replica ends.
_LEDGER_S = 5.0


class Replica:
    """Answers the methods of `elle.router.v1.RouterService` in a process of Ray Serve.

    Args:
        settings: the settings of the service; the policies come from `user_config`, or from a store that they name.
        variables: variables of the environment as they are in the process that deployed; None removes one.
    """

    def __init__(self, settings: ServerSettings, variables: Mapping[str, str | None]) -> None:
        from probes.shards.ray_cluster import restore_variables

        restore_variables(dict(variables))
        configure_logging(settings.log)
        self._settings = settings
        self._service, self._intake, self._in_flight = RouterService(), Intake(), InFlight()
        self._gate = Gate(settings.identity, open_admin=False)
        self._methods = ProxiedMethods(self._service, self._intake, self._gate, self._in_flight)
        self._reloader: Reloader | None = None
        self._desk: FeedbackDesk | None = None
        self._stack = contextlib.AsyncExitStack()
        self._background: list[asyncio.Task[None]] = []

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Load the policies that `user_config` names; the replica takes calls only after the first time.

        Ray Serve calls this in every replica, before its first call and whenever the application is deployed with
        another `user_config`. If the policies cannot be used, those before go on; the first time ConfigError is raised.
        """
        paths = tuple(Path(path) for path in user_config.get("policies", ()))
        if self._reloader is not None:
            if self._settings.store is None:
                # The reloader logs what is wrong. Ray Serve would end a replica that raises here.
                with contextlib.suppress(RouterError, ProbesError):
                    await self._reloader.replace(lambda: load_policies(paths or (DEFAULT_POLICY,)), "user_config")
            return
        settings, ledger = replace(self._settings, policies=paths), None
        await self._stack.enter_async_context(kept_fresh(self._gate.watched_with(None)))
        if settings.ledger is not None:
            ledger = await asyncio.to_thread(open_ledger, settings.ledger)
            self._stack.push_async_callback(asyncio.to_thread, ledger.close, _LEDGER_S)
            settings = replace(settings, observers=settings.observers.plus(ledger))
            self._desk = FeedbackDesk(ledger)
        reloader = await self._stack.enter_async_context(
            loaded(settings, self._intake, self._start, settings.observers)
        )
        self._refuse_exploring(reloader)
        self._start(reloader.current)
        self._reloader = reloader
        if settings.store is not None:
            self._background.append(asyncio.create_task(reloader.reload_on_changes()))

    def _start(self, in_force: InForce) -> None:
        if self._desk is not None:
            in_force.router.find_answerer = self._desk.answerer_of
        self._service.start(in_force.router, in_force.dispatcher, self._desk)

    def _refuse_exploring(self, reloader: Reloader) -> None:
        for name, policy in reloader.current.router.policies.items():
            if policy.rules.file.explore is not None:
                raise ConfigError(
                    f"policy {name!r} explores, and replicas on Ray do not share what that has cost; remove its key "
                    "`explore`, or serve it without --engine ray."
                )

    async def close(self) -> None:
        """End in order: what waits for the ledger is written."""
        for task in self._background:
            task.cancel()
        await self._stack.aclose()

    async def __del__(self) -> None:
        # Ray Serve awaits this when a replica ends.
        await self.close()

    async def Route(self, data: bytes, grpc_context: Any) -> EncodedAnswer:  # noqa: N802
        """Decide which candidate should answer, as `RouterService.Route` does; the other methods do what theirs do."""
        return await self._methods.answer("Route", data, grpc_context)

    async def BatchRoute(self, data: bytes, grpc_context: Any) -> EncodedAnswer:  # noqa: N802
        """Decide many requests in one call, as on our own port."""
        return await self._methods.answer("BatchRoute", data, grpc_context)

    async def Complete(self, data: bytes, grpc_context: Any) -> EncodedAnswer:  # noqa: N802
        """Decide, and return the answer of the chosen candidate."""
        return await self._methods.answer("Complete", data, grpc_context)

    async def StreamComplete(self, data: bytes, grpc_context: Any) -> AsyncIterator[EncodedAnswer]:  # noqa: N802
        """Decide, and stream the answer message by message."""
        async for item in self._methods.stream("StreamComplete", data, grpc_context):
            yield item

    async def Feedback(self, data: bytes, grpc_context: Any) -> EncodedAnswer:  # noqa: N802
        """Keep feedback on an answer, and return a receipt."""
        return await self._methods.answer("Feedback", data, grpc_context)

    async def GetPolicy(self, data: bytes, grpc_context: Any) -> EncodedAnswer:  # noqa: N802
        """Return a policy as this replica runs it."""
        return await self._methods.answer("GetPolicy", data, grpc_context)
