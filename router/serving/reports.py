"""Report what a serving process has counted: its gauges, and the way of a worker's counts to its parent."""

from __future__ import annotations

import contextlib
import platform
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from router.observing import catalogue
from router.observing.metrics import SHORT_DIGEST
from router.observing.tally import Labels, Snapshot, Tally

if TYPE_CHECKING:
    from router.deciding.pipeline import Router
    from router.drift.watch import DriftWatch
    from router.ledger.recorder import Ledger
    from router.rollout.canary_file import CanaryFollower
    from router.rollout.shadow import ShadowWatch
    from router.serving.ports import ServicePorts
    from router.serving.reloading.reloader import Reloader
    from router.sharing.exchange import StateExchange
    from router.watched_files import Refreshable

#: Seconds between two reports of a worker. What it counts after the last one is lost if it is killed.
REPORT_S = 1.0

#: The longest report that is read, in bytes. One of 64 versions of policies with ten candidates each has a third.
_MAX_REPORT_BYTES = 64 * 1024 * 1024


#: Seconds that the parent waits for a worker that tries a prompt.
_TRIAL_S = 20.0

#: What a worker sends its parent next: its counts, or the answer to a prompt that it tried.
_COUNTS, _ANSWER = b"c", b"a"


@dataclass(frozen=True)
class OptionalParts:
    """Holds the parts of a process that it may be without: those that watch, and those that others share."""

    drift: DriftWatch | None = None
    shadow: ShadowWatch | None = None
    ledger: Ledger | None = None
    exchange: StateExchange | None = None


def process_state(reloader: Reloader, ports: ServicePorts, parts: OptionalParts = OptionalParts()) -> Snapshot:
    """Return the gauges of a process, how its reloads ended, who called, and the calls that its gate turned away."""
    from router.serving.reloading.reloader import ReloadOutcome

    router, reloads = reloader.current.router, reloader.counts
    policies: dict[Labels, float] = {}
    expires: dict[Labels, float] = {}
    for name, policy in router.policies.items():
        version = name, policy.ref.digest[:SHORT_DIGEST]
        policies[*version, policy.probe_ref.digest[:SHORT_DIGEST] if policy.probe_ref else ""] = 1.0
        if policy.certificate is not None:
            expires[version] = policy.certificate.expires.timestamp()
    return Snapshot(
        {
            catalogue.CACHE_ENTRIES.name: {(): float(router.cache_counts.entries)},
            catalogue.ENCODER_PENDING.name: {(): float(router.pending)},
            catalogue.SESSIONS.name: {(): float(len(router.memory.sessions))},
            catalogue.TURNED_AWAY.name: {(*key,): float(n) for key, n in ports.gate.counts.snapshot().items() if n},
            **_callers(ports),
            catalogue.RELOADS.name: {(one.value,): float(reloads.by_outcome[one]) for one in ReloadOutcome},
            catalogue.POLICY_LOADED.name: {(): reloads.loaded_at},
            catalogue.WORKERS.name: {(): 1.0},
            catalogue.POLICY_INFO.name: policies,
            catalogue.CERTIFICATE_EXPIRES.name: expires,
            **_drift_values(parts.drift),
            **_shadow_values(parts.shadow),
            **_ledger_values(parts.ledger),
            **_canary_values(_follower(router)),
            **_watched_values([*ports.watched, *filter(None, (_follower(router),))], reloads.last_error),
            **_exchange_values(parts.exchange),
            catalogue.BUILD_INFO.name: {(_version(), platform.python_version()): 1.0},
        }
    )


def _callers(ports: ServicePorts) -> dict[str, dict[Labels, float]]:
    decisions: dict[Labels, float] = {}
    costs: dict[Labels, float] = {}
    for label, figures in ports.gate.accounts.figures().items():
        decisions[label, "strong"] = float(figures.strong)
        decisions[label, "cheapest"] = float(figures.decided - figures.strong)
        costs[label,] = figures.usd
    expires = ports.certificates.expires_at if ports.certificates is not None else None
    return {
        catalogue.CALLER_DECISIONS.name: decisions,
        catalogue.CALLER_COST.name: costs,
        catalogue.TLS_EXPIRES.name: {} if expires is None else {(): expires.timestamp()},
    }


def _watched_values(watched: Sequence[Refreshable], fault_of_policies: str) -> dict[str, dict[Labels, float]]:
    failures: Counter[Labels] = Counter()
    for one in watched:
        failures[one.kind,] += one.failures
    failing: dict[Labels, float] = {("policies",): float(bool(fault_of_policies))}
    failing |= {(one.kind,): 0.0 for one in watched}
    failing |= {(one.kind,): 1.0 for one in watched if one.error}
    return {
        catalogue.WATCHED_FAILURES.name: {labels: float(n) for labels, n in failures.items()},
        catalogue.WATCHED_FAILING.name: failing,
    }


class WorkerReports:
    """Receives in the parent what one worker has counted, and lets the worker try prompts.

    A thread waits for what the worker sends, so that a worker that stops in the middle of it holds up nobody.

    Args:
        pipe: the parent's end of the pipe to the worker.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._latest = Snapshot()
        self._asking = threading.Lock()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._receive, name="reports", daemon=True)
        self._thread.start()

    def latest(self) -> Snapshot:
        """Return what the worker last said that it has counted."""
        return self._latest

    def try_prompt(self, request: bytes) -> bytes:
        """Let the worker try a prompt, and return its answer; see `router.admin.trial.try_prompt`.

        Raises TimeoutError if it does not answer in time, and OSError if it has ended.
        """
        with self._asking:
            # Answers to questions that nobody waited for are thrown away.
            while not self._answers.empty():
                self._answers.get()
            self._pipe.send_bytes(request)
            try:
                return self._answers.get(timeout=_TRIAL_S)
            except queue.Empty:
                raise TimeoutError from None

    def close(self) -> None:
        """Take what a worker that has ended said last, and close the pipe."""
        self._thread.join()
        self._pipe.close()

    def _receive(self) -> None:
        # The worker's end closes when the worker ends.
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, told = self._pipe.recv_bytes(_MAX_REPORT_BYTES), self._pipe.recv_bytes(_MAX_REPORT_BYTES)
                if kind == _COUNTS:
                    self._latest = Snapshot.from_json(told)
                else:
                    self._answers.put(told)


class ReportSender:
    """Sends the counts of a worker to its parent, once a second and at the end, and tries prompts for the parent.

    Args:
        pipe: the worker's end of the pipe.
        tally: counts what the worker does.
        trial: tries a prompt; see `router.admin.trial.try_prompt`.
    """

    def __init__(self, pipe: Connection, tally: Tally, trial: Callable[[bytes], bytes]) -> None:
        self._pipe, self._tally, self._trial = pipe, tally, trial
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="reports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the counts for the last time."""
        self._over.set()
        self._thread.join(2 * REPORT_S)

    def _send(self) -> None:
        # If the parent was killed, there is nobody to tell.
        with contextlib.suppress(EOFError, OSError):
            while not self._over.is_set():
                if self._pipe.poll(REPORT_S):
                    self._tell(_ANSWER, self._trial(self._pipe.recv_bytes(_MAX_REPORT_BYTES)))
                self._tell(_COUNTS, self._tally.snapshot().to_json())

    def _tell(self, kind: bytes, what: bytes) -> None:
        self._pipe.send_bytes(kind)
        self._pipe.send_bytes(what)


def _drift_values(drift: DriftWatch | None) -> dict[str, dict[Labels, float]]:
    distances: dict[Labels, float] = {}
    alarms: dict[Labels, float] = {}
    blocks: dict[Labels, float] = {}
    for digest, watch in drift.watches.items() if drift is not None else ():
        probe, alarmed = digest[:SHORT_DIGEST], {alarm.signal for alarm in watch.alarms}
        blocks[(probe,)] = float(watch.n_blocks)
        for signal, compared in watch.comparisons.items():
            distances[probe, signal] = compared.distance
            alarms[probe, signal] = float(signal in alarmed)
    return {
        catalogue.DRIFT_BLOCKS.name: blocks,
        catalogue.DRIFT_DISTANCE.name: distances,
        catalogue.DRIFT_ALARM.name: alarms,
    }


def _shadow_values(shadow: ShadowWatch | None) -> dict[str, dict[Labels, float]]:
    pairs: dict[Labels, float] = {}
    left_out: dict[Labels, float] = {}
    cost: dict[Labels, float] = {}
    for name, counts in shadow.counts.items() if shadow is not None else ():
        pairs |= {(name, *pair): float(n) for pair, n in list(counts.pairs.items())}
        left_out[name, "refused"] = float(counts.n_refused)
        left_out[name, "left_out"] = float(counts.n_left_out)
        cost[name, "serving"], cost[name, "shadow"] = counts.cost_usd, counts.shadow_cost_usd
    return {
        catalogue.SHADOW_DECISIONS.name: pairs,
        catalogue.SHADOW_UNCOMPARED.name: left_out,
        catalogue.SHADOW_COST.name: cost,
    }


def _ledger_values(ledger: Ledger | None) -> dict[str, dict[Labels, float]]:
    if ledger is None:
        return {}
    counts = ledger.counts
    fates = {name: getattr(counts, name) for name in ("written", "spooled", "replayed", "dropped")}
    return {
        catalogue.LEDGER_ROWS.name: {(fate,): float(n) for fate, n in fates.items()},
        catalogue.LEDGER_WAITING.name: {(): float(counts.waiting)},
        catalogue.LEDGER_SPOOL.name: {(): float(counts.spool_bytes)},
        catalogue.LEDGER_LAG.name: {(): counts.lag_s},
        catalogue.LEDGER_DOWN.name: {(): float(counts.is_down)},
    }


def _follower(router: Router) -> CanaryFollower | None:
    # The parent of several workers imports this module, and needs no router.
    from router.rollout.canary_router import CanaryRouter

    return router.follower if isinstance(router, CanaryRouter) else None


def _canary_values(follower: CanaryFollower | None) -> dict[str, dict[Labels, float]]:
    if follower is None or (canary := follower.value) is None:
        return {}
    plan, evidence = canary.plan, canary.evidence
    low, high = evidence.loss_interval()
    return {
        catalogue.CANARY_SHARE.name: {
            (plan.policy, plan.base, canary.status.value): 0.0 if follower.missing else canary.share
        },
        catalogue.CANARY_LOSS.name: {
            (plan.policy, "low"): low,
            (plan.policy, "high"): high,
            (plan.policy, "limit"): plan.max_loss,
        },
        catalogue.CANARY_LABELS.name: {(plan.policy,): float(evidence.n_labels)},
        catalogue.CANARY_REQUESTS.name: {(plan.policy,): float(evidence.n_requests)},
    }


def _version() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("elle-router")
    return "unknown"


def _exchange_values(exchange: StateExchange | None) -> dict[str, dict[Labels, float]]:
    if exchange is None:
        return {}
    counts = exchange.counts
    return {
        catalogue.STATE_FAILURES.name: {(): float(counts.failures)},
        catalogue.STATE_UNSAID.name: {(): float(counts.unsaid)},
        catalogue.STATE_AGE.name: {(): counts.age_s},
    }
