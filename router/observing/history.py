"""Remember how the counts of a service grew over the last day, within a fixed bound of memory (`History`)."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from router.observing.catalogue import CATALOGUE, Metric
from router.observing.tally import Labels, Snapshot

#: Seconds between two samples, and the number of them that are kept: an hour.
SAMPLE_S, MOST_SAMPLES = 15.0, 240

#: Every so many samples one is kept for longer, and the number of those: a day.
_COARSE_EVERY, _MOST_COARSE = 20, 288

#: Series of one sample; more are left out.
_MOST_SERIES = 400


@dataclass(frozen=True, slots=True)
class CountSample:
    """Holds what was counted up to one moment, added over the versions of policies.

    Attributes:
        at: the Unix time in seconds.
        values: counters and gauges by metric and labels, but for those of single callers.
        histograms: the buckets of each histogram one by one, and last the sum, by metric and labels.
    """

    at: float
    values: dict[Labels, float] = field(default_factory=dict)
    histograms: dict[Labels, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Growth:
    """Says what was counted between two samples."""

    before: CountSample
    after: CountSample

    @property
    def seconds(self) -> float:
        """Return the time between the samples, and never 0."""
        return max(1e-3, self.after.at - self.before.at)

    def by(self, metric: Metric, label: str) -> dict[str, float]:
        """Return how much a counter grew, by the values of one of its labels; those that did not grow are left out."""
        place = 1 + _labels_of(metric).index(label)
        grown: dict[str, float] = {}
        for labels, value in self.after.values.items():
            # The series of a version that was not used for long are gone, so a sum over versions may be less.
            if labels[0] == metric.name and (more := value - self.before.values.get(labels, 0.0)) > 0:
                grown[labels[place]] = grown.get(labels[place], 0.0) + more
        return grown

    def total(self, metric: Metric, **where: str) -> float:
        """Return how much a counter grew in all series, or in those with these labels."""
        wanted = {1 + _labels_of(metric).index(label): value for label, value in where.items()}
        grown = 0.0
        for labels, value in self.after.values.items():
            if labels[0] == metric.name and all(labels[place] == one for place, one in wanted.items()):
                grown += max(0.0, value - self.before.values.get(labels, 0.0))
        return grown

    def quantile(self, metric: Metric, labels: Labels, share: float) -> float | None:
        """Return a quantile of the values of a histogram, as Prometheus computes it; None if there are none."""
        key = (metric.name, *labels)
        row = self.after.histograms.get(key)
        if row is None:
            return None
        before = self.before.histograms.get(key, [0.0] * len(row))
        counts = [max(0.0, one - other) for one, other in zip(row[:-1], before[:-1], strict=True)]
        return _quantile(metric.buckets, counts, share)


class History:
    """Keeps a sample of the counts every 15 seconds for an hour, and every 5 minutes for a day.

    Args:
        read: returns the values of all metrics now.
        clock: returns the Unix time in seconds.
    """

    def __init__(self, read: Callable[[], Snapshot], clock: Callable[[], float] = time.time) -> None:
        self._read, self._clock = read, clock
        self._fine: deque[CountSample] = deque(maxlen=MOST_SAMPLES)
        self._coarse: deque[CountSample] = deque(maxlen=_MOST_COARSE)
        self._n_taken = 0
        #: When the service began to count.
        self.began = CountSample(clock())

    def take(self) -> None:
        """Take a sample and keep it."""
        sample = self.now()[0]
        self._fine.append(sample)
        if self._n_taken % _COARSE_EVERY == 0:
            self._coarse.append(sample)
        self._n_taken += 1

    def now(self) -> tuple[CountSample, Snapshot]:
        """Return a sample of this moment, which is not kept, and everything that it was taken from."""
        snapshot = self._read()
        return _sample(self._clock(), snapshot), snapshot

    def line(self, seconds: float | None) -> list[CountSample]:
        """Return the samples of the last seconds, or of all time for None, the oldest first.

        The first one is the last before that time, so that growth since then has a beginning.
        """
        fine = list(self._fine)
        start = fine[0].at if fine else float("inf")
        older = [one for one in self._coarse if one.at < start]
        # The beginning is a sample too, until samples after it were dropped; what was counted since then is then not of
        # the first interval.
        begins = [self.began] if seconds is None or self._n_taken <= MOST_SAMPLES else []
        every = [*begins, *older, *fine]
        if seconds is None:
            return every
        first = bisect_right([one.at for one in every], self._clock() - seconds)
        return every[max(0, first - 1) :] or [self.began]


def _labels_of(metric: Metric) -> Sequence[str]:
    return metric.labels[2:] if metric.labels[:2] == ("policy", "version") else metric.labels


def _sample(at: float, snapshot: Snapshot) -> CountSample:
    values: dict[Labels, float] = {}
    for name, series in snapshot.values.items():
        # There may be thousands of callers, which would leave no room for anything else.
        if "caller" in CATALOGUE[name].labels:
            continue
        skipped = len(CATALOGUE[name].labels) - len(_labels_of(CATALOGUE[name]))
        for labels, value in series.items():
            key = (name, *labels[skipped:])
            if key in values or len(values) < _MOST_SERIES:
                values[key] = values.get(key, 0.0) + value
    histograms: dict[Labels, list[float]] = {}
    for name, rows in snapshot.histograms.items():
        skipped = len(CATALOGUE[name].labels) - len(_labels_of(CATALOGUE[name]))
        for labels, row in rows.items():
            key = (name, *labels[skipped:])
            if key in histograms:
                histograms[key] = [a + b for a, b in zip(histograms[key], row, strict=True)]
            elif len(histograms) < _MOST_SERIES // 10:
                histograms[key] = list(row)
    return CountSample(at, values, histograms)


def _quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Return a quantile of values of which each bucket's count is known: linear within a bucket."""
    wanted, seen = share * sum(counts), 0.0
    if not wanted:
        return None
    for index, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = bounds[index - 1] if index else 0.0
            # Nobody knows how far beyond the last bound a value lies.
            high = bounds[index] if index < len(bounds) else low
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return bounds[-1]
