"""Predict the loss and the calibrated risk of every candidate model from features of a prompt (`DifficultyProbe`)."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float32, Float64, matrix, refuse_non_finite
from probes.calibration.base import Calibrator
from probes.errors import DataError, DimensionError, EncoderMismatchError
from probes.kinds.known_kinds import KnownKinds, NearestKinds
from probes.regression.linear import Leverage, LinearProbe
from probes.scoring.prompt_scorer import PromptScorer
from probes.tasks.offsets import TaskOffsets

Fingerprints = npt.NDArray[np.uint64]

#: A sample counts as unfamiliar beyond this quantile of the leverage that left-out samples of the same data have.
FAMILIAR_QUANTILE = 0.999

#: Name of the tensor of fingerprints in an artifact.
FITTED_ON = "fitted_on"

#: What the names of the tensors of task offsets begin with.
TASKS = "tasks"

#: What the names of the tensors of known kinds begin with.
KINDS = "kinds"


def fingerprints(texts: Iterable[str]) -> Fingerprints:
    """Return the first 8 bytes of each text's SHA-256, (n,): they recognise a text and do not reveal it."""
    return np.array([int.from_bytes(sha256(text.encode()).digest()[:8]) for text in texts], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class DataSource:
    """Identifies a data set that a probe was fitted on: name, SHA-256 (hex) of its contents, number of rows."""

    name: str
    sha256: str
    n_rows: int


@dataclass(frozen=True, slots=True)
class ProbeCard:
    """Records the origin and the measured quality of a probe; nothing here changes a prediction.

    created: ISO 8601, UTC. data: what it was fitted on. n_samples: labelled rows for each model. metrics:
    held-out figures as plain JSON (nested names, numbers, strings, lists). versions: of the software used.
    """

    title: str
    created: str
    summary: str = ""
    data: tuple[DataSource, ...] = ()
    n_samples: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ProbePrediction:
    """Holds the predictions of a probe for n prompts and m models.

    loss: (n, m) float32, the expected loss 1 - score, not confined to [0, 1]. risk: (n, m) float64, the
    calibrated probability that this model's answer is unacceptable. leverage: (n,) float32, distance from
    the training data. unfamiliar: (n,) booleans, leverage above the probe's limit.
    """

    loss: Float32
    risk: Float64
    leverage: Float32
    unfamiliar: npt.NDArray[np.bool_]


class OnePrediction(NamedTuple):
    """Holds the predictions of a probe for one prompt: loss and risk of each model, leverage, and the nearest kinds.

    See `ProbePrediction` for the ranges. `kinds` is None if the probe knows no kinds.
    """

    loss: tuple[float, ...]
    risk: tuple[float, ...]
    leverage: float
    kinds: NearestKinds | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DifficultyProbe:
    """A linear probe with its encoder's identity, its leverage and one calibration map for each candidate model.

    encoder: the encoder's spec as plain JSON, None for features that come from elsewhere.
    encoder_identity: the digest that `check_encoder` compares ("" when encoder is None). models: (m,)
    names, in the order of the linear probe's targets. leverage_limit: above it a prompt counts as
    unfamiliar; None if no prompt does. calibrators: one per model; empty if the losses are not
    probabilities (for example, nats), which `linear` still predicts. fitted_on: `fingerprints` of the texts it was
    fitted on, in any order, so that evaluation and tuning recognise prompts it has seen; it changes no prediction.
    tasks: offsets of the losses for tasks of the caller, added before calibration; None if there are none.
    kinds: the known kinds of request, which change no prediction; None if there are none.
    """

    encoder: Mapping[str, object] | None
    encoder_identity: str
    models: tuple[str, ...]
    linear: LinearProbe
    leverage: Leverage
    leverage_limit: float | None
    calibrators: tuple[Calibrator, ...]
    card: ProbeCard
    fitted_on: Fingerprints = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    tasks: TaskOffsets | None = None
    kinds: KnownKinds | None = None
    _scorer: PromptScorer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        m = self.linear.n_targets
        if len(self.models) != m or len(set(self.models)) != m or not all(self.models):
            raise DataError(
                f"models must be {m} different names, one for each target of the linear probe; got {self.models}."
            )
        if len(self.calibrators) not in (0, m):
            raise DataError(f"calibrators must be one per model, {m}, or none; got {len(self.calibrators)}.")
        if self.leverage.n_features != self.linear.n_features:
            raise DimensionError(
                "linear probe and leverage must agree on the number of features; got "
                f"{self.linear.n_features} and {self.leverage.n_features}."
            )
        if (self.encoder is None) != (self.encoder_identity == ""):
            raise DataError("encoder and encoder_identity must be given together, or be None and ''.")
        if self.fitted_on.ndim != 1 or self.fitted_on.dtype != np.uint64:
            raise DataError("fitted_on must be what `fingerprints` returns, a vector of uint64.")
        limit = self.leverage_limit
        if limit is not None and not (np.isfinite(limit) and limit > 0):
            raise DataError(f"leverage_limit must be a finite number > 0, or None; got {limit}.")
        if self.tasks is not None and self.tasks.n_models != m:
            raise DataError(f"task offsets must be of the probe's {m} models; got {self.tasks.n_models}.")
        if self.kinds is not None and self.kinds.n_features != self.n_features:
            raise DimensionError(
                f"kinds must be of the probe's {self.n_features} features; got {self.kinds.n_features}."
            )
        object.__setattr__(self, "_scorer", PromptScorer(self.linear, self.leverage, self.kinds))

    @property
    def n_features(self) -> int:
        """The number of features that the probe reads, d."""
        return self.linear.n_features

    def offset_of(self, task: str) -> Float32 | None:
        """Return the offset (m,) of a task's losses, or None for an empty key and for a task that is not known."""
        return None if self.tasks is None or not task else self.tasks.offset(task)

    def predict(self, features: Array, tasks: Sequence[str] | None = None) -> ProbePrediction:
        """Return losses, risks and leverage of n prompts from their features (n, d).

        tasks: (n,) the key of each prompt's task; None, an empty key and an unknown one leave the losses as they are.

        Each row is computed alone, so that no bit of a prediction depends on the other rows of the batch (a matrix
        product rounds differently for different n). For millions of rows without risks use `linear.predict` and
        `leverage.score`, which take the whole matrix at once.

        Raises DimensionError for another d, DataError for NaN or infinity (it names row and column) or for a probe
        without calibration.
        """
        raw = matrix("features", features, self.n_features)
        refuse_non_finite("features", raw)
        self._require_calibration()
        with np.errstate(over="ignore"):  # an overflow of float32 is refused just below
            X = np.ascontiguousarray(raw, dtype=np.float32)
        scored = [self._scorer.score(x, with_kinds=False) for x in X]
        loss = np.array([one.loss for one in scored], dtype=np.float32).reshape(len(X), len(self.models))
        leverage = np.array([one.leverage for one in scored], dtype=np.float32)
        for row, task in enumerate(tasks or ()):
            if (offset := self.offset_of(task)) is not None:
                loss[row] += offset
        usable = np.isfinite(loss).all(axis=1) & np.isfinite(leverage)
        if not usable.all():
            raise DataError(
                f"features must be of the size the probe was fitted on; row {int(np.argmin(usable))} "
                "overflows float32. Use the same encoder and pooling as at fitting time."
            )
        risk = np.empty(loss.shape)
        for j, calibrator in enumerate(self.calibrators):
            risk[:, j] = calibrator.predict(loss[:, j].astype(np.float64))
        limit = np.inf if self.leverage_limit is None else self.leverage_limit
        return ProbePrediction(loss, risk, leverage, leverage > limit)

    def predict_one(self, features: Array, task: str = "") -> OnePrediction:
        """Return exactly what `predict` returns for the one row (d,) and its task, in a fraction of the time.

        Raises the errors of `predict`.
        """
        self._require_calibration()
        x = features
        if isinstance(x, np.ndarray) and x.dtype == np.float32 and x.shape == (self.n_features,):
            scored = self._scorer.score(np.ascontiguousarray(x))
            offset = self.offset_of(task)
            loss = scored.loss if offset is None else tuple((np.array(scored.loss, np.float32) + offset).tolist())
            # The leverage uses every feature, so one feature that is not finite makes it not finite.
            if math.isfinite(scored.leverage) and all(map(math.isfinite, loss)):
                risk = tuple([one.predict_one(value) for one, value in zip(self.calibrators, loss, strict=True)])
                return OnePrediction(loss, risk, scored.leverage, scored.kinds)
        # It says what is wrong, or converts the features.
        self.predict(np.asarray(x)[np.newaxis], (task,))
        return self.predict_one(np.asarray(x, dtype=np.float32), task)

    def _require_calibration(self) -> None:
        if not self.calibrators:
            raise DataError(
                "this probe has no calibration, hence no risk. Use its `linear.predict`, or fit calibrators."
            )

    def check_encoder(self, identity: str) -> None:
        """Raise EncoderMismatchError unless this is the encoder that the probe was fitted with."""
        if identity != self.encoder_identity:
            raise EncoderMismatchError(
                "features must come from the encoder this probe was fitted with, "
                f"{self.encoder_identity or 'none'}; "
                f"got {identity or 'none'}. Load that encoder, or fit the probe again."
            )

    def tensors(self) -> dict[str, Array]:
        """Return every array of the probe by its name in an artifact."""
        named: dict[str, Array] = {
            "linear.coef": self.linear.coef,
            "linear.intercept": self.linear.intercept,
            "linear.alpha": self.linear.alpha,
            "leverage.mean": self.leverage.mean,
            "leverage.inverse_scale": self.leverage.inverse_scale,
            "leverage.factor": self.leverage.factor,
            "leverage.scalars": np.array([self.leverage.tail, self.leverage.floor, self.leverage.error_bound]),
        }
        if self.fitted_on.size:
            named[FITTED_ON] = self.fitted_on
        for i, calibrator in enumerate(self.calibrators):
            named |= {f"calibration.{i}.{name}": array for name, array in calibrator.state().items()}
        if self.tasks is not None:
            named |= {f"{TASKS}.{name}": array for name, array in self.tasks.tensors().items()}
        if self.kinds is not None:
            named |= {f"{KINDS}.{name}": array for name, array in self.kinds.tensors().items()}
        return named

    @property
    def identity(self) -> str:
        """The SHA-256 (hex) of all that a record shows: encoder, models, limit, maps, tasks and kinds, not the card."""
        kinds = [calibrator.kind for calibrator in self.calibrators]
        digest = sha256(repr((self.encoder_identity, self.models, self.leverage_limit, kinds)).encode())
        if self.tasks is not None:
            digest.update(f"\0{TASKS}\0{self.tasks.keys!r}\0".encode())
        if self.kinds is not None:
            digest.update(f"\0{KINDS}\0{(self.kinds.names, self.kinds.assumed)!r}\0".encode())
        for name, array in sorted(self.tensors().items()):
            if name == FITTED_ON:
                continue
            digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def software_versions(*packages: str) -> dict[str, str]:
    """Return the versions for a card: Python, numpy, this package and others ("unknown" if not installed)."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for package in ("elle-router", *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def utc_now() -> str:
    """Return the current time for a card: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
