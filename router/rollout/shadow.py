"""Let a policy decide every request without acting on it, and count how it differs from the one that serves."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from probes.encoders.spec import Encoder, EncoderSpec, FloatArray
from router.deciding.pipeline import Router, load_encoders
from router.deciding.settings import RouterSettings
from router.decision import RoutingDecision
from router.errors import RouterError
from router.observing.observer import DecidedEvent, Observer
from router.policies.loading import ServedPolicy, load_policies
from router.values import Capability, RouteQuery

log = logging.getLogger(__name__)

#: Neither sessions nor judgements are remembered, and the encoder runs in the shadow's own thread.
_SETTINGS = RouterSettings(threads=1, cache_entries=0, max_sessions=0)

#: What a request needs if it may hold megabytes that are no text.
_LARGE = {Capability.IMAGE, Capability.AUDIO, Capability.FILE, Capability.VIDEO}

#: Requests that wait for the shadow. Further ones are left out and counted.
MAX_WAITING = 256

#: Requests with more estimated input tokens are left out and counted, and so are those with pictures and the like. What
#: waits then takes at most a few hundred megabytes.
MOST_TOKENS = 50_000


@dataclass
class ShadowCounts:
    """Counts what one shadow policy would have done.

    Attributes:
        pairs: how often each pair of candidates, the one that was chosen and the one of the shadow, occurred.
        n_refused: requests that the shadow would have refused.
        n_left_out: requests that it did not decide, because they were too large, too many waited, or it failed.
        n_priced: requests for which the expected cost of both is known.
        cost_usd, shadow_cost_usd: the sums of these costs, of the candidates chosen and of those of the shadow.
    """

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    n_refused: int = 0
    n_left_out: int = 0
    n_priced: int = 0
    cost_usd: float = 0.0
    shadow_cost_usd: float = 0.0

    @property
    def agreement(self) -> float | None:
        """The share of requests for which both choose the candidate of the same name; None if there are none."""
        n = self.pairs.total()
        return sum(count for (one, other), count in self.pairs.items() if one == other) / n if n else None


class _KnownFeatures:
    """An encoder that returns the features of one text without a forward pass, because they are known."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.text = ""
        self.features: FloatArray | None = None

    @property
    def spec(self) -> EncoderSpec:
        """The spec of the encoder."""
        return self._encoder.spec

    @property
    def n_features(self) -> int:
        """The number of features, d."""
        return self._encoder.n_features

    def encode(self, text: str) -> FloatArray:
        """Return the features (d,) of a text."""
        if self.features is not None and text == self.text:
            return self.features
        return self._encoder.encode(text)


class ShadowWatch(Observer):
    """Decides every request that the default policy has decided once more, by each shadow policy, in a thread.

    It is an observer. Features that were computed for the request are used again if the shadow's probe reads the same
    ones; otherwise the prompt is encoded once more in the thread. Sessions and the cache of judgements are left out, so
    that the counts are about the rule alone.

    Args:
        policies: the shadow policies, with or without their profiles, which are left out.
        encoders: the encoder for each encoder identity that a probe of the policies names.

    Raises EncoderMismatchError if an encoder is not the one that a probe was fitted on.
    """

    def __init__(self, policies: Sequence[ServedPolicy], encoders: Mapping[str, Encoder]) -> None:
        self._encoders = {identity: _KnownFeatures(encoder) for identity, encoder in encoders.items()}
        self._router = Router(policies, self._encoders, _SETTINGS)
        self.counts = {policy.ref.name: ShadowCounts() for policy in policies if ":" not in policy.ref.name}
        self._waiting: queue.Queue[DecidedEvent | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @classmethod
    def from_files(cls, paths: Sequence[Path], encoder_dir: Path | None = None) -> Self:
        """Return the watch of the policies in these files.

        encoder_dir: the folder of the encoder's files; None looks in the usual places.

        Raises ConfigError for a policy that cannot be used, and EncoderError if its encoder is not found.
        """
        policies = load_policies(paths)
        return cls(policies, load_encoders(policies, encoder_dir))

    def decided(self, event: DecidedEvent) -> None:
        """Let the shadows decide the request too, unless it asked for a policy or a candidate of its own."""
        overrides = event.query.overrides
        if overrides.policy or overrides.pin:
            return
        decision = event.decision
        is_large = decision.input_tokens_estimate > MOST_TOKENS or not _LARGE.isdisjoint(decision.needs)
        if is_large or not self._put(replace(event, query=replace(event.query, body=None))):
            for counts in self.counts.values():
                counts.n_left_out += 1

    def wait(self) -> None:
        """Wait until everything that has been decided so far was compared."""
        self._waiting.join()

    def close(self) -> None:
        """Let the shadows decide nothing more, and end their thread. What still waits is left out."""
        while True:
            try:
                self._waiting.put_nowait(None)
                break
            except queue.Full:
                self._waiting.get_nowait()
                self._waiting.task_done()
        self._thread.join()

    def _put(self, event: DecidedEvent) -> bool:
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            for name, counts in self.counts.items():
                self._compare(event, name, counts)
            self._waiting.task_done()
        self._waiting.task_done()

    def _decide(self, query: RouteQuery, event: DecidedEvent) -> RoutingDecision:
        known = self._encoders.get(event.encoder)
        if known is not None and event.features is not None:
            known.text, known.features = event.text, event.features
        return self._router.decide(query)

    def _compare(self, event: DecidedEvent, name: str, counts: ShadowCounts) -> None:
        query = replace(event.query, overrides=replace(event.query.overrides, policy=name), session_id="")
        try:
            shadow = self._decide(query, event)
        except RouterError:
            counts.n_refused += 1
        except Exception:
            # A fault of the shadow policy, or of ours, must end neither this thread nor the service.
            log.exception("shadow policy %s failed on a request", name)
            counts.n_left_out += 1
        else:
            _count(counts, event.decision, shadow)


def _count(counts: ShadowCounts, decision: RoutingDecision, shadow: RoutingDecision) -> None:
    counts.pairs[decision.chosen, shadow.chosen] += 1
    costs = [one.expected_usd(one.chosen) for one in (decision, shadow)]
    if costs[0] is not None and costs[1] is not None:
        counts.n_priced += 1
        counts.cost_usd += costs[0]
        counts.shadow_cost_usd += costs[1]
