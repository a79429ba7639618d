"""Decide every request of a log by the router's own pipeline, with the log's clock and the real memory of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import EncoderSpec, FloatArray
from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.decision import RoutingDecision
from router.errors import RouterError
from router.policies.loading import ServedPolicy
from router.tuning.outcomes.feature_cache import FeatureCache
from router.tuning.previewing.logged_requests import LoggedRequest

#: A function that is called with what is being done, how much of it is done, and how much there is.
ReplayProgress = Callable[[str, int, int], None]

#: Stands for a candidate number where no candidate answers.
NOBODY = -1

#: How often the progress is told, in requests.
_TOLD_EVERY = 100


@dataclass(frozen=True)
class Replay:
    """Holds what a policy decides for the n requests of a log.

    Attributes:
        decisions: for each request the decision, or the error with which the service would have refused it.
        chosen: (n,) number of the candidate that answers in the policy's order; NOBODY for a refused request.
    """

    decisions: tuple[RoutingDecision | RouterError, ...]
    chosen: npt.NDArray[np.int64]

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Return for each request whether a candidate answers it, (n,)."""
        return np.not_equal(self.chosen, NOBODY)


class _KnownFeatures:
    """An encoder that has encoded all texts before, each of them once."""

    def __init__(self, spec: EncoderSpec, features: Mapping[str, FloatArray]) -> None:
        self.spec = spec
        self.n_features = len(next(iter(features.values()))) if features else 0
        self._features = features

    def encode(self, text: str) -> FloatArray:
        """Return the features of a text of the log, (d,) float32."""
        return self._features[text]


@dataclass
class _LogClock:
    """The clock of the replay: it says when the request that is being decided was asked, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def encode_texts(
    served: ServedPolicy,
    requests: Sequence[LoggedRequest],
    encoder_dir: Path | None = None,
    on_progress: ReplayProgress | None = None,
) -> dict[str, FloatArray]:
    """Return the features (d,) of each distinct text that the policy may judge; nothing for a policy without a probe.

    Raises EncoderError as `load_encoder` does.
    """
    texts = list(dict.fromkeys(one.ask.text for one in requests if one.ask.text))
    if served.encoder_spec is None or not texts:
        return {}

    def tell(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress("encoding", done, total)

    features = FeatureCache().features(served.encoder_spec, texts, encoder_dir=encoder_dir, on_progress=tell)
    return dict(zip(texts, features, strict=True))


def replay(
    served: ServedPolicy,
    requests: Sequence[LoggedRequest],
    features: Mapping[str, FloatArray],
    on_progress: ReplayProgress | None = None,
) -> Replay:
    """Return what the service would have decided for each request, which come in the order of time.

    A session of the log goes through the router's memory of sessions at the times of the log. The candidate that the
    policy chooses is taken to answer. features: of every text, by `encode_texts`.
    """
    clock = _LogClock()
    spec = served.encoder_spec
    encoders = {} if spec is None else {spec.identity: _KnownFeatures(spec, features)}
    # Every text is looked up, so judgements need not be kept, and one thread is enough.
    router = Router([served], encoders, RouterSettings(threads=1, cache_entries=0), clock=clock)
    names = served.rules.file.names
    decisions: list[RoutingDecision | RouterError] = []
    for number, request in enumerate(requests, start=1):
        clock.now = request.asked_at or 0.0
        try:
            decisions.append(router.decide(request.query))
        except RouterError as error:
            decisions.append(error)
        if on_progress is not None and (number % _TOLD_EVERY == 0 or number == len(requests)):
            on_progress("deciding", number, len(requests))
    asyncio.run(router.close())
    chosen = [NOBODY if isinstance(one, RouterError) else names.index(one.chosen) for one in decisions]
    return Replay(tuple(decisions), np.array(chosen, dtype=np.int64))


def without_sessions(served: ServedPolicy) -> ServedPolicy:
    """Return the policy that decides every request by itself, whoever answered its session before."""
    file = served.rules.file.model_copy(update={"sessions": "ignore"})
    return replace(served, rules=replace(served.rules, file=file))
