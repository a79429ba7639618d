"""Load the policies of a service for the first time, and make what can replace them (`loaded`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable

from router.answering.dispatch import Dispatcher
from router.answering.formats.translating.translations import TRANSLATIONS
from router.deciding.pipeline import Router
from router.intake.bounds import Intake
from router.observing.observer import Observers
from router.rollout.canary_file import CanaryFollower
from router.rollout.canary_router import CanaryRouter
from router.serving import http_server
from router.serving.reloading.in_force import InForce
from router.serving.reloading.reloader import Reloader, ReloadParts, uses_canned
from router.serving.reloading.sources import FileSource, PolicySource, StoreSource
from router.serving.settings import ServerSettings
from router.versions.opening import store_at
from router.watched_files import kept_fresh

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def loaded(
    settings: ServerSettings, intake: Intake, serve: Callable[[InForce], None], observers: Observers
) -> AsyncIterator[Reloader]:
    """Load the policies and what they need. Yield what holds them and can replace them, and close it in the end.

    Args:
        settings: say where the policies are.
        intake: the bounds that all doors share.
        serve: is called with what decides after each reload; see `ReloadParts`.
        observers: are told of every decision and of how every answer ends.

    Raises ConfigError for a policy that cannot be used, and EncoderError if the encoder is not available.
    """
    async with contextlib.AsyncExitStack() as stack:
        canned_url: str | None = None
        follower: CanaryFollower | None = None
        reloader: Reloader

        async def open_canned() -> str:
            nonlocal canned_url
            if canned_url is None:
                canned_url = await stack.enter_async_context(http_server.serve_on_loopback())
            return canned_url

        source = source_of(settings)
        router = await asyncio.to_thread(_load, settings, intake, source, observers)
        if isinstance(router, CanaryRouter) and settings.canary is not None:
            follower = await asyncio.to_thread(
                CanaryFollower, settings.canary, lambda: reloader.current.router.policies
            )
            router.follower = follower
        try:
            url = await open_canned() if uses_canned(router.policies.values()) else None
        except BaseException:
            await router.close()
            raise
        formats = tuple(TRANSLATIONS) if settings.http is not None else ()
        dispatcher = Dispatcher(router.policies, canned_url=url, observers=observers, formats=formats)
        parts = ReloadParts(serve, open_canned, settings.encoder_dir)
        reloader = Reloader(source, InForce(router, dispatcher), parts)
        # The first router and its policies must be free to go once they are replaced.
        del router, dispatcher
        stack.push_async_callback(reloader.close)
        if follower is not None:
            log.warning("the canary in %s%s", settings.canary, follower.told())
            await stack.enter_async_context(kept_fresh([follower]))
        yield reloader


def _load(settings: ServerSettings, intake: Intake, source: PolicySource, observers: Observers) -> Router:
    kind = Router if settings.canary is None else CanaryRouter
    router = kind.from_policies(
        source.load(),
        encoder_dir=settings.encoder_dir,
        settings=settings,
        intake=intake,
        observers=observers,
    )
    router.warm_up()
    # The objects that are loaded now stay for long. Searching them for garbage would stop everything for 250 ms.
    gc.collect()
    gc.freeze()
    return router


def source_of(settings: ServerSettings) -> PolicySource:
    """Return where the settings say that policies are: in a store, or in files."""
    if settings.store is not None:
        return StoreSource(store_at(settings.store))
    return FileSource(settings.policies)
