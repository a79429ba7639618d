"""Count what one process does (`Tally`), and hold the counts in a form that processes exchange (`Snapshot`)."""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from router.observing.catalogue import CATALOGUE, Metric, MetricKind

#: The values of the labels of one series, in the order of the metric's labels.
Labels = tuple[str, ...]

_Value = TypeVar("_Value", float, list[float])

#: Versions of policies whose series are kept; those of others go, the least recently used first.
MAX_VERSIONS = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Holds the values of all metrics at one moment, by the name of the metric and the labels.

    Attributes:
        values: counters and gauges.
        histograms: for each bucket, and then for infinity, how many values it holds by itself; last the sum.
    """

    values: dict[str, dict[Labels, float]] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, list[float]]] = field(default_factory=dict)

    def value(self, metric: Metric, *labels: str) -> float:
        """Return the value of one series, or 0 if there is none."""
        return self.values.get(metric.name, {}).get(labels, 0.0)

    def series(self, metric: Metric) -> Mapping[Labels, float]:
        """Return all values of a metric by their labels."""
        return self.values.get(metric.name, {})

    def add(self, other: Snapshot) -> None:
        """Add the values of another process to these."""
        for name, series in other.values.items():
            own, is_same = self.values.setdefault(name, {}), CATALOGUE[name].kind is MetricKind.SAME
            for labels, value in series.items():
                before = own.get(labels)
                own[labels] = value if before is None else max(before, value) if is_same else before + value
        for name, counts in other.histograms.items():
            mine = self.histograms.setdefault(name, {})
            for labels, row in counts.items():
                mine[labels] = [a + b for a, b in zip(mine[labels], row, strict=True)] if labels in mine else list(row)

    def without_gauges(self) -> Snapshot:
        """Return the counters and histograms alone, which stay when a process has ended."""
        counters = {name: dict(s) for name, s in self.values.items() if CATALOGUE[name].kind is MetricKind.COUNTER}
        return Snapshot(counters, self.histograms)

    def versions(self) -> list[Labels]:
        """Return the versions of policies that have series, each as name and version, the oldest first."""
        found: dict[Labels, None] = {}
        for name in (*self.values, *self.histograms):
            if _has_version(name):
                found |= dict.fromkeys(
                    labels[:2] for labels in (self.values.get(name) or self.histograms.get(name, {}))
                )
        return list(found)

    def drop(self, version: Labels) -> None:
        """Forget all series of a version of a policy."""
        for name in (*self.values, *self.histograms):
            if _has_version(name):
                _drop(self.values.get(name, {}), version)
                _drop(self.histograms.get(name, {}), version)

    def to_json(self) -> bytes:
        """Return the snapshot as JSON."""
        return json.dumps([_rows(self.values), _rows(self.histograms)], separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Snapshot:
        """Return the snapshot that `to_json` has written. Metrics that this version does not know are left out."""
        values, histograms = json.loads(data)
        return cls(_series(values), _series(histograms))


class Tally:
    """Counts what one process does. It is thread-safe, and keeps the series of `MAX_VERSIONS` versions of policies.

    Args:
        read_state: returns the gauges now, and what others count; it is called for every snapshot.
    """

    def __init__(self, read_state: Callable[[], Snapshot] = Snapshot) -> None:
        self._read_state = read_state
        self._counts = Snapshot()
        self._used: dict[Labels, None] = {}
        self._lock = threading.Lock()

    def count(self, metric: Metric, labels: Labels = (), by: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            series = self._counts.values.setdefault(metric.name, {})
            series[labels] = series.get(labels, 0.0) + by

    def observe(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            series = self._counts.histograms.setdefault(metric.name, {})
            row = series.get(labels)
            if row is None:
                row = series[labels] = [0.0] * (len(metric.buckets) + 2)
            row[bisect_left(metric.buckets, value)] += 1.0
            row[-1] += value

    def use(self, version: Labels) -> None:
        """Note that a version of a policy, its name and its digest, is used, before something is counted for it."""
        with self._lock:
            self._used.pop(version, None)
            self._used[version] = None
            while len(self._used) > MAX_VERSIONS:
                oldest = next(iter(self._used))
                del self._used[oldest]
                self._counts.drop(oldest)

    def snapshot(self) -> Snapshot:
        """Return a copy of all counts, with the state now."""
        now = self._read_state()
        with self._lock:
            now.add(self._counts)
        return now


def _has_version(name: str) -> bool:
    return CATALOGUE[name].labels[:2] == ("policy", "version")


def _drop(series: dict[Labels, _Value], version: Labels) -> None:
    for labels in [one for one in series if one[:2] == version]:
        del series[labels]


def _rows(every: Mapping[str, Mapping[Labels, _Value]]) -> dict[str, list[tuple[Labels, _Value]]]:
    return {name: list(series.items()) for name, series in every.items()}


def _series(every: Mapping[str, list[tuple[list[str], _Value]]]) -> dict[str, dict[Labels, _Value]]:
    return {name: dict(_pairs(rows)) for name, rows in every.items() if name in CATALOGUE}


def _pairs(rows: list[tuple[list[str], _Value]]) -> Iterator[tuple[Labels, _Value]]:
    for labels, value in rows:
        yield tuple(labels), value
