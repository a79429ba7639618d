"""Define `LossPairs`, the result of every loss loader, and `LossLoader`, the batching loop that all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.errors import DataError, DimensionError
from probes.progress import counting_bar

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class LossPairs:
    """Holds embeddings with the losses that a probe should predict from them.

    `embeddings` (n, d) float32 and `losses` (n,) float64 are finite, n >= 1, read-only, and untouched by
    later changes to the arrays passed in; `ids` names each sample or is None; `provenance` says which model,
    objective and settings made them. Raises DataError (also a ValueError) naming the first bad row, and
    DimensionError if lengths disagree.
    """

    embeddings: NDArray[np.float32]
    losses: NDArray[np.float64]
    ids: tuple[str, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        embeddings = _read_only(self.embeddings, np.float32)
        losses = _read_only(self.losses, np.float64)
        if embeddings.ndim != 2 or embeddings.shape[1] == 0:
            raise DimensionError(f"embeddings must have shape (n, d) with d >= 1, got {embeddings.shape}")
        if losses.shape != embeddings.shape[:1]:
            raise DimensionError(
                f"losses must have shape ({embeddings.shape[0]},), one per embedding, got {losses.shape}"
            )
        if not losses.size:
            raise DataError("there must be at least one (embedding, loss) pair, got none")
        require_finite(embeddings, losses)
        if self.ids is not None and len(self.ids) != losses.size:
            raise DimensionError(f"ids must name each of the {losses.size} samples, got {len(self.ids)} ids")
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "ids", None if self.ids is None else tuple(map(str, self.ids)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __len__(self) -> int:
        return int(self.losses.size)


def _read_only(values: ArrayLike, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"embeddings and losses must be real numbers, got dtype {array.dtype}")
    own = np.ascontiguousarray(array, dtype=dtype)
    if own.flags.writeable:
        # An array that the caller can still write to must be copied.
        own = own.copy() if np.shares_memory(own, array) else own
        own.flags.writeable = False
    return own


def require_finite(embeddings: NDArray[Any], losses: NDArray[Any], first: int = 0) -> None:
    """Raise DataError naming the first row (counted from `first`) with a NaN or an infinity."""
    for name, bad in (
        ("embedding", ~np.isfinite(embeddings).all(axis=1)),
        ("loss", ~np.isfinite(losses)),
    ):
        if bad.any():
            row = first + int(np.argmax(bad))
            raise DataError(
                f"{name} of sample {row} must be finite, got NaN or infinity; leave the sample out, "
                "or check what the model computes for it"
            )


def slices(n: int, batch_size: int, label: str, progress: bool | None = None) -> Iterator[slice]:
    """Yield slices of at most `batch_size` that cover range(n), with a progress bar.

    The bar is drawn on stderr; if `progress` is None, only if that is a terminal.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    parts = (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))
    with counting_bar(label, n, progress) as advance:
        for part in parts:
            yield part
            advance(part.stop - part.start)


class LossLoader(ABC, Generic[Sample]):
    """The base of all loss loaders, which turn samples into (embedding, loss) pairs by a model and its objective.

    A subclass measures one batch; the loop, the progress bar, the checks and the result are here. The result of
    `measure` for a sample depends on that sample and the settings alone, never on its batch.
    """

    objective: ClassVar[str]

    @abstractmethod
    def measure(self, samples: Sequence[Sample], first: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return embeddings (b, d) and losses (b,) of `samples`; `first` numbers samples[0] in error messages."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings with which the same losses can be measured again, as JSON values."""

    def batches(
        self, samples: Sequence[Sample], batch_size: int = 32, *, progress: bool | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        """Yield embeddings (b, d) float32 and losses (b,) float64, in the order of `samples`, b <= batch_size."""
        for part in slices(len(samples), batch_size, self.objective, progress):
            embeddings, losses = self.measure(samples[part], part.start)
            require_finite(embeddings, losses, part.start)
            yield embeddings.astype(np.float32, copy=False), losses.astype(np.float64, copy=False)

    def collect(
        self,
        samples: Sequence[Sample],
        *,
        batch_size: int = 32,
        ids: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> LossPairs:
        """Return the pairs of all `samples` (at least one) in memory; use `batches` if memory does not hold them."""
        if not len(samples):
            raise DataError(f"{self.objective} needs at least one sample, got none")
        embeddings = np.empty((0, 0), dtype=np.float32)
        losses = np.empty(len(samples))
        row = 0
        for batch, batch_losses in self.batches(samples, batch_size, progress=progress):
            # One array from the start: thousands of small ones between a model's large buffers would keep the
            # allocator from reusing those, and memory would grow with every batch.
            if not row:
                embeddings = np.empty((len(samples), batch.shape[1]), dtype=np.float32)
            embeddings[row : row + len(batch)], losses[row : row + len(batch)] = batch, batch_losses
            row += len(batch)
        return LossPairs(
            embeddings=embeddings,
            losses=losses,
            ids=None if ids is None else tuple(ids),
            provenance={"objective": self.objective, **self.settings()},
        )
