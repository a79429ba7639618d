"""Replace the policies that a service decides by, all at once and only after they were checked (`Reloader`)."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from probes.bounded.secrets import mask_secrets
from probes.errors import ProbesError
from router.deciding.pipeline import Router
from router.errors import ConfigError, RouterError
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.loading import ServedPolicy
from router.serving.reloading.in_force import InForce, are_served, say_change, say_versions
from router.serving.reloading.sources import PolicySource
from router.watched_files import LOOK_S, Attempts

log = logging.getLogger(__name__)

T = TypeVar("T")


class ReloadOutcome(enum.StrEnum):
    """The ways in which a reload can end."""

    #: Other policies decide from now on.
    REPLACED = "replaced"
    #: The policies are those that decide already.
    UNCHANGED = "unchanged"
    #: The policies cannot be used. Those that decided before go on.
    FAILED = "failed"


@dataclass
class ReloadCounts:
    """Counts the reloads of one process.

    Attributes:
        by_outcome: how many ended in each way since the start.
        loaded_at: when the policies that decide now were loaded, in seconds since 1970.
        last_error: why the policies of the source could not be used when they were read last; empty if they could.
    """

    by_outcome: Counter[ReloadOutcome] = field(default_factory=Counter)
    loaded_at: float = field(default_factory=time.time)
    last_error: str = ""


@dataclass(frozen=True)
class ReloadParts:
    """What a `Reloader` needs of the service around it.

    Attributes:
        serve: lets every door take its requests with other parts from now on. It must not wait for anything.
        open_canned: starts the built-in upstream, and returns its base URL.
        encoder_dir: the folder of the encoder's files; None looks in the usual places.
    """

    serve: Callable[[InForce], None]
    open_canned: Callable[[], Awaitable[str]]
    encoder_dir: Path | None = None


class Reloader:
    """Replaces the policies that a service decides by. It belongs to one event loop.

    New policies are loaded and checked in a thread, with their probes, encoders, prices and certificates, and each
    probe judges one prompt. Only then all doors take them, in one step between two requests. Requests that have begun
    end with the policies that they began with. If anything is wrong, the old policies go on.

    Sessions, cached judgements, circuit breakers and connections outlive a reload, and so do encoders that the new
    policies need too.

    Args:
        source: where the policies come from.
        first: what decides until the first reload.
        parts: what it needs of the service.

    Attributes:
        current: what decides now.
        counts: how earlier reloads ended.
    """

    def __init__(self, source: PolicySource, first: InForce, parts: ReloadParts) -> None:
        self.current = first
        self.counts = ReloadCounts()
        self._source = source
        self._parts = parts
        self._lock = asyncio.Lock()
        # One thread of its own: memory that many threads take in turn is given back late.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reload")

    def load(self) -> tuple[ServedPolicy, ...]:
        """Return the policies of the source as they are now. Raises ConfigError."""
        return self._source.load()

    async def reload(self, because: str) -> ReloadOutcome:
        """Load the policies again, and log and return whether they were replaced. Errors are logged, never raised.

        because: what asks for it, for the log, such as "SIGHUP".
        """
        try:
            return await self.replace(self.load, because)
        except (RouterError, ProbesError):
            return ReloadOutcome.FAILED

    async def replace(
        self,
        load: Callable[[], Sequence[ServedPolicy]],
        because: str,
        commit: Callable[[], object] = lambda: None,
    ) -> ReloadOutcome:
        """Let other policies decide, and return whether they differ from those that decide now.

        Args:
            load: returns the policies, the default first. It is called in a thread.
            because: what asks for it, for the log.
            commit: is called in a thread once the policies were checked, before they are served. If it raises an error
                of ours, the old policies go on.

        Raises RouterError or ProbesError if the policies cannot be used, or what `commit` raises. It is logged already.
        """
        async with self._lock:
            try:
                outcome = await self._replace(load, because, commit)
            except (RouterError, ProbesError) as error:
                self._note_failure(because, mask_secrets(str(error)), of_source=load == self.load)
                raise
            except Exception as error:
                # Whatever goes wrong with new policies, the service lives on with the old ones.
                why = f"{type(error).__name__}, which is a defect of ELLE Router"
                self._note_failure(because, why, of_source=load == self.load, defect=error)
                raise ConfigError("the policies cannot be used; see the service's log.") from error
            if outcome is ReloadOutcome.UNCHANGED and self.counts.last_error:
                log.warning("%s: the policies can be used again, and are those that decide", because)
            self.counts.by_outcome[outcome] += 1
            self.counts.last_error = ""
            return outcome

    async def reload_whenever(self, asked: asyncio.Event, because: str) -> None:
        """Reload each time that an event is set, for ever."""
        while True:
            await asked.wait()
            asked.clear()
            if await self.reload(because) is ReloadOutcome.UNCHANGED:
                log.warning("%s: nothing has changed: %s", because, say_versions(self.current.router))

    async def reload_on_changes(self, every_s: float = LOOK_S) -> None:
        """Reload each time that the source has changed, and try again what could not be used, for ever."""
        # The first look always reloads: files may have changed while they were loaded.
        attempts = Attempts(settles=not self._source.is_whole, first_s=every_s)
        while True:
            await self._source.wait(every_s)
            marks = await self._in_thread(self._source.marks)
            if attempts.are_due(marks):
                outcome = await self.reload(self._source.change)
                attempts.note(marks, failed=outcome is ReloadOutcome.FAILED)

    async def close(self) -> None:
        """Close what decides and answers now. No request may be in flight any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self.current.dispatcher.aclose()
        await self.current.router.close()

    async def _replace(
        self, load: Callable[[], Sequence[ServedPolicy]], because: str, commit: Callable[[], object]
    ) -> ReloadOutcome:
        started, before = time.monotonic(), self.current
        router = await self._in_thread(self._checked, load, before.router)
        if router is None:
            await self._in_thread(commit)
            return ReloadOutcome.UNCHANGED
        canned_url = await self._parts.open_canned() if uses_canned(router.policies.values()) else None
        dispatcher = before.dispatcher.with_policies(router.policies, canned_url=canned_url)
        if dispatcher.is_loaded:
            await dispatcher.load()
        await self._in_thread(commit)
        self.current = InForce(router, dispatcher)
        self._parts.serve(self.current)
        self.counts.loaded_at = time.time()
        change, took_s = say_change(before.router, router), time.monotonic() - started
        log.warning("%s: other policies decide from now on: %s (%.1f s)", because, change, took_s)
        return ReloadOutcome.REPLACED

    def _checked(self, load: Callable[[], Sequence[ServedPolicy]], before: Router) -> Router | None:
        """Return a router for the policies, each of which has judged a prompt; None if they decide already."""
        policies = load()
        if are_served(policies, before):
            return None
        router = before.with_policies(policies, self._parts.encoder_dir)
        router.warm_up()
        return router

    def _note_failure(self, because: str, why: str, *, of_source: bool, defect: Exception | None = None) -> None:
        self.counts.by_outcome[ReloadOutcome.FAILED] += 1
        is_known = why == self.counts.last_error and because == self._source.change
        if of_source:
            self.counts.last_error = why
        if is_known:
            # Nobody asked for this attempt, and it says what an earlier one has said.
            return
        served = say_versions(self.current.router)
        log.error("%s: the policies were not replaced, %s go on: %s", because, served, why, exc_info=defect)

    async def _in_thread(self, job: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *arguments)


def uses_canned(policies: Iterable[ServedPolicy]) -> bool:
    """Return whether a candidate is answered by the built-in upstream with canned answers."""
    return any(one.api_base == CANNED_UPSTREAM for policy in policies for one in policy.rules.file.candidates)
