"""Watch all traffic of a service for drift, one watch for each probe (`DriftWatch`, an observer)."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from probes.atomic_write import write_file
from probes.bounded.text import decode_json, os_fault
from probes.errors import ArtifactError
from router.decision import Reason, RoutingDecision
from router.drift.settings import DriftSettings
from router.drift.traffic_watch import TrafficWatch
from router.errors import ConfigError
from router.observing.observer import DecidedEvent, Observer

log = logging.getLogger(__name__)

#: The most probes that are watched at a time. The one that has been idle longest goes first.
MAX_PROBES = 16

#: The name under which the traffic of policies without a probe is watched.
NO_PROBE = "no probe"

#: The largest state file that is read.
_MOST_BYTES = 64 * 1024 * 1024

_SCHEMA = "elle.drift/1"


class DriftWatch(Observer):
    """Counts every decision, compares blocks of them with a baseline, and logs an alarm when the traffic has changed.

    A decision for which a session held its candidate is not counted, because it was not judged anew.

    Args:
        settings: how blocks are formed and when a change is an alarm.
        state: the file that keeps the baselines over restarts; None keeps them in memory only.
        clock: returns the time in seconds since 1970.

    Raises ConfigError if the state file exists and is not one.
    """

    def __init__(
        self,
        settings: DriftSettings | None = None,
        *,
        state: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or DriftSettings()
        self._state = state
        self._clock = clock
        self._writing: threading.Thread | None = None
        self._watches: dict[str, TrafficWatch] = _read_state(state, self._settings) if state else {}

    @property
    def watches(self) -> Mapping[str, TrafficWatch]:
        """The watch of each probe, by the probe's digest, the one that was used last at the end."""
        return self._watches

    def decided(self, event: DecidedEvent) -> None:
        """Count a decision in the block of its probe.

        If that completes the block, it is compared with the baseline, alarms are logged, and the state is saved.
        """
        decision = event.decision
        if decision.reason is Reason.SESSION_HELD:
            return
        probe = decision.probe.digest if decision.probe else NO_PROBE
        watch = self._watches.pop(probe, None) or TrafficWatch(self._settings)
        # Python's dicts keep the order of insertion, so the first one is the one that has been idle longest.
        self._watches[probe] = watch
        while len(self._watches) > MAX_PROBES:
            del self._watches[next(iter(self._watches))]
        before = watch.alarms
        if watch.add(decision, self._clock()):
            self._report(decision, watch, had_alarms=bool(before))
            self._save_soon()

    def save(self) -> None:
        """Write the state file, if there is one. A failure is logged, because the watch goes on in memory."""
        if self._writing is not None:
            self._writing.join()
        if self._state is not None:
            _write_state(self._state, self._as_bytes())

    def _save_soon(self) -> None:
        # The event loop must not wait for a disk.
        if self._state is not None:
            before, contents = self._writing, self._as_bytes()

            def write(path: Path) -> None:
                # An older state must not replace this one.
                if before is not None:
                    before.join()
                _write_state(path, contents)

            self._writing = threading.Thread(target=write, args=(self._state,), name="drift state")
            self._writing.start()

    def _as_bytes(self) -> bytes:
        plain = {probe: watch.to_json() for probe, watch in self._watches.items()}
        return json.dumps({"schema": _SCHEMA, "probes": plain}).encode()

    @staticmethod
    def _report(decision: RoutingDecision, watch: TrafficWatch, *, had_alarms: bool) -> None:
        for alarm in watch.alarms:
            log.warning("drift: policy %s: %s", decision.policy.name, alarm)
        if had_alarms and not watch.alarms:
            log.info("drift: policy %s: the traffic is as in the baseline again", decision.policy.name)


def _write_state(path: Path, contents: bytes) -> None:
    try:
        write_file(path, contents)
    except ArtifactError as error:
        log.error("the drift state cannot be written, so its baselines are lost at the end: %s", error)  # noqa: TRY400


def _read_state(path: Path, settings: DriftSettings) -> dict[str, TrafficWatch]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"drift state {path} is larger than {_MOST_BYTES:,} bytes; it is no state of ours.")
        plain: Any = decode_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"drift state {path} cannot be read ({os_fault(error)}); move it away to begin a new baseline."
        ) from error
    if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA or not isinstance(plain.get("probes"), dict):
        raise ConfigError(f"drift state {path} has no schema {_SCHEMA}; move it away to begin a new baseline.")
    try:
        return {str(probe): TrafficWatch.from_json(one, settings) for probe, one in plain["probes"].items()}
    except ConfigError as error:
        fault = str(error).rstrip(".")
        raise ConfigError(
            f"drift state {path} cannot be read ({fault}); move it away to begin a new baseline."
        ) from error
