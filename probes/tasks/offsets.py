"""Hold an offset of the expected loss for each task and model, shrunk by the number of labels (`TaskOffsets`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float32, Float64, matrix, read_only
from probes.errors import DataError
from probes.tasks.keys import MAX_TASKS, key_fault

Int64 = npt.NDArray[np.int64]

#: A residual is kept as a whole number of these, so that sums do not depend on the order of labels, to the bit.
UNIT = 2.0**-32

#: The largest residual of one label, and the most labels of one model in one task: sums of these stay within int64.
MOST_RESIDUAL, MOST_LABELS = 1024.0, 1 << 20


@dataclass(frozen=True, eq=False)
class TaskOffsets:
    """Offsets of the expected loss of m models for t tasks, with the labels that they follow from.

    The loss of prompt i of task t is taken to be what the probe predicts, plus an offset b_t, plus noise. Over tasks
    the offsets are normal with mean 0 and covariance `covariance` over the models; the noise of model j has variance
    `variance[j]`, independent of the other models'. Given n_j labels whose residuals have the sum s_j, the offset is
    the posterior mean

        b = (I + C W)^-1 C W r,   C = covariance,  W = diag(n_j / variance_j),  r_j = s_j / n_j,

    which is the best linear unbiased predictor of a random effect (Henderson 1975, "Best linear unbiased estimation
    and prediction under a selection model"; Efron and Morris 1973 for the empirical Bayes view). With no label it is 0
    and the probe speaks; with many it is the mean residual. A label of one model moves the others too.

    Attributes:
        keys: (t,) keys of the tasks, sorted, at most MAX_TASKS.
        covariance: (m, m) float64, positive semidefinite. variance: (m,) float64, > 0.
        counts: (t, m) int64, labels for each task and model. sums: (t, m) int64, the sum of their residuals (true loss
            minus predicted loss) in `UNIT`s. Both only add up, so the order of labels changes nothing, to the bit, and
            a label can be withdrawn.
    """

    keys: tuple[str, ...]
    covariance: Float64
    variance: Float64
    counts: Int64
    sums: Int64
    _offsets: Mapping[str, Float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, dtype in (("covariance", "f8"), ("variance", "f8"), ("counts", "i8"), ("sums", "i8")):
            object.__setattr__(self, name, read_only(getattr(self, name), dtype))
        self._check()
        rows = zip(self.keys, self.counts, self.sums, strict=True)
        offsets = {key: self._posterior(n, s).astype(np.float32) for key, n, s in rows}
        object.__setattr__(self, "_offsets", MappingProxyType(offsets))

    def _check(self) -> None:
        m, t = self.variance.size, len(self.keys)
        if self.variance.shape != (m,) or self.covariance.shape != (m, m) or m == 0:
            raise DataError("covariance and variance of task offsets must be of the same models, (m, m) and (m,).")
        if not (np.isfinite(self.covariance).all() and np.isfinite(self.variance).all() and self.variance.min() > 0):
            raise DataError("covariance and variance of task offsets must be finite, and the variance > 0.")
        scale = max(float(np.abs(self.covariance).max()), 1e-300)
        if not np.allclose(self.covariance, self.covariance.T, atol=1e-12 * scale):
            raise DataError("the covariance of task offsets must be symmetric.")
        if np.linalg.eigvalsh(self.covariance)[0] < -1e-9 * scale:
            raise DataError("the covariance of task offsets must be positive semidefinite.")
        if t > MAX_TASKS:
            raise DataError(f"a probe must hold the offsets of at most {MAX_TASKS:,} tasks; got {t:,}.")
        if list(self.keys) != sorted(set(self.keys)):
            raise DataError("the keys of tasks must be distinct and sorted.")
        for key in self.keys:
            if fault := key_fault(key):
                raise DataError(f"the key of a task must {fault}.")
        if self.counts.shape != (t, m) or self.sums.shape != (t, m):
            raise DataError(f"counts and sums of task offsets must have shape {(t, m)}.")
        if t and (self.counts.min() < 0 or self.counts.max() > MOST_LABELS):
            raise DataError(f"a task must have 0 to {MOST_LABELS:,} labels of each model.")
        most = self.counts * round(MOST_RESIDUAL / UNIT)
        if (self.sums < -most).any() or (self.sums > most).any():
            raise DataError("the sums of task offsets must be those of as many labels as are counted.")

    @property
    def n_models(self) -> int:
        """The number of models, m."""
        return int(self.variance.size)

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._offsets

    def offset(self, key: str) -> Float32 | None:
        """Return the offset (m,) that is added to the predicted losses of a task, or None for an unknown task."""
        return self._offsets.get(key)

    def n_labels(self, key: str) -> int:
        """Return the number of labels of a task, over all models; 0 for an unknown task."""
        return int(self.counts[self.keys.index(key)].sum()) if key in self._offsets else 0

    def add(self, key: str, residuals: npt.ArrayLike) -> TaskOffsets:
        """Return the offsets after further labels of one task, which may be new.

        residuals: (n, m) true minus predicted loss of each label; NaN stands for a model without a label.

        Raises DataError for a key that cannot be one, for residuals out of range, and if a bound would be exceeded.
        """
        if fault := key_fault(key):
            raise DataError(f"the key of a task must {fault}.")
        counts, sums = counted(residuals, self.n_models)
        if not counts.any():
            raise DataError("there must be a label of one of the probe's models, got none.")
        if key not in self and len(self) >= MAX_TASKS:
            raise DataError(
                f"a probe holds the offsets of at most {MAX_TASKS:,} tasks, and this one is full; withdraw the labels "
                f"of a task first."
            )
        return self._with(key, counts, sums)

    def withdraw(self, key: str, residuals: npt.ArrayLike) -> TaskOffsets:
        """Return the offsets without labels that were added before, exactly as if they had never been.

        A task without a label left is forgotten. Raises DataError for an unknown task, and for labels that were not
        added to it as far as their number and sum can tell.
        """
        if key not in self:
            raise DataError("labels can only be withdrawn from a task that the probe knows, and it does not know this.")
        counts, sums = counted(residuals, self.n_models)
        row = self.keys.index(key)
        left, rest = self.counts[row] - counts, self.sums[row] - sums
        if (left < 0).any():
            raise DataError("more labels are to be withdrawn than the task has; only what was added can be withdrawn.")
        if rest[left == 0].any():
            raise DataError(
                "the labels to withdraw must be those that were added: all labels of a model would be gone, but not "
                "their sum."
            )
        return self._with(key, -counts, -sums)

    def _with(self, key: str, counts: Int64, sums: Int64) -> TaskOffsets:
        rows = {one: (n, s) for one, n, s in zip(self.keys, self.counts, self.sums, strict=True)}
        old = rows.get(key, (np.zeros_like(counts), np.zeros_like(sums)))
        rows[key] = (old[0] + counts, old[1] + sums)
        if not rows[key][0].any():
            del rows[key]
        keys, shape = tuple(sorted(rows)), (len(rows), self.n_models)
        return replace(
            self,
            keys=keys,
            counts=np.array([rows[one][0] for one in keys], dtype=np.int64).reshape(shape),
            sums=np.array([rows[one][1] for one in keys], dtype=np.int64).reshape(shape),
        )

    def of_labels(self, residuals: npt.ArrayLike) -> Float64:
        """Return the offset (m,) of a task with these labels alone; residuals (n, m) as in `add`."""
        return self._posterior(*counted(residuals, self.n_models))

    def _posterior(self, counts: Int64, sums: Int64) -> Float64:
        known = counts > 0
        # (I + C W)^-1 C W r = C (C + W^-1)^-1 r, over the models with labels. A further model without labels then
        # changes no bit of the others' offsets.
        towards = np.ascontiguousarray(self.covariance[:, known])
        inside = towards[known] + np.diag(self.variance[known] / counts[known])
        return np.asarray(np.vecdot(towards, np.linalg.solve(inside, sums[known] * UNIT / counts[known])))

    def with_model(self, slopes: npt.ArrayLike, variance: float) -> TaskOffsets:
        """Return the offsets with a further model without labels, whose offset is a combination of the others'.

        slopes: (m,) by how much its loss rises if the loss of each other model rises by 1. variance: of its noise, > 0.
        No bit of the other models' offsets changes.
        """
        by = np.asarray(slopes, dtype=np.float64)
        further = by @ self.covariance
        none = np.zeros((len(self), 1), dtype=np.int64)
        return replace(
            self,
            covariance=np.block([[self.covariance, further[:, None]], [further[None], np.full((1, 1), further @ by)]]),
            variance=np.append(self.variance, variance),
            counts=np.hstack([self.counts, none]),
            sums=np.hstack([self.sums, none]),
        )

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by their names in an artifact."""
        return {name: getattr(self, name) for name in ("covariance", "variance", "counts", "sums")}


def counted(residuals: npt.ArrayLike, n_models: int) -> tuple[Int64, Int64]:
    """Return the number of labels (m,) and the sum of their residuals (m,) in `UNIT`s.

    residuals: (n, m), NaN for a model without a label. Raises DataError for a residual beyond MOST_RESIDUAL.
    """
    R = matrix("residuals", residuals, n_models)
    known = ~np.isnan(R)
    if known.any() and not (np.abs(R[known]) <= MOST_RESIDUAL).all():
        raise DataError(f"the residual of a label must be at most {MOST_RESIDUAL:g}; the losses do not fit the probe.")
    units = np.rint(np.where(known, R, 0.0) / UNIT).astype(np.int64)
    return known.sum(axis=0, dtype=np.int64), units.sum(axis=0, dtype=np.int64)
