"""Score embeddings shard by shard (`ScoringWork`): what a worker reads, computes and returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.embeddings.files import EmbeddingFile, open_embeddings
from probes.errors import DataError, DimensionError
from probes.shards.work import ShardFunction

Scorer = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
_BLOCK_BYTES = 16 << 20
#: The column of a result that says why a row has no score; it is not in the output. Its name is on disk: keep it.
REASON = "_why"


class EmbeddingSource(Protocol):
    """The interface of what says where embeddings come from, and can be sent to another process.

    Attributes:
        path: the file that is read. settings: what else the embeddings depend on, in words; None if nothing else.
    """

    @property
    def path(self) -> Path:
        """The file that is read."""

    @property
    def settings(self) -> str | None:
        """What else the embeddings depend on; None if nothing else."""

    def open(self, threads: int | None = None) -> EmbeddingFile:
        """Open the file, to be read with so many threads; None stands for one a core.

        Raises DataError if the file cannot be read.
        """


@dataclass(frozen=True)
class FileSource:
    """Names a file of embeddings, and the array or column in it; None is the usual one, as in `open_embeddings`."""

    path: Path
    settings: str | None = None

    def open(self, threads: int | None = None) -> EmbeddingFile:
        """Open the file; see `open_embeddings`."""
        return open_embeddings(self.path, self.settings)


@dataclass(frozen=True)
class ScoringWork:
    """Scores `rows` embeddings in shards of `part_rows`; the result of a shard is a parquet file.

    It has the columns `row`, those of the scorer, and `REASON`, which is null for rows that have a score.
    """

    source: EmbeddingSource
    scorer: Scorer
    rows: int
    part_rows: int

    @property
    def n_shards(self) -> int:
        """The number of shards."""
        return -(-self.rows // self.part_rows)

    def rows_of(self, number: int) -> int:
        """Return the number of rows in a shard."""
        return min(self.part_rows, self.rows - number * self.part_rows)

    def open(self, threads: int | None) -> ShardFunction:
        """Open the file of embeddings. Raises DataError if this worker sees another file than the others."""
        embeddings = self.source.open(threads)
        if embeddings.rows != self.rows:
            raise DataError(
                f"{self.source.path} must hold {self.rows:,} rows for every worker; here it holds {embeddings.rows:,}. "
                "Put it where every machine reads the same file, and leave it unchanged."
            )
        reader = ShardReader(embeddings, self.part_rows)

        def compute(number: int) -> bytes:
            first = number * self.part_rows
            return _as_parquet(_scored(reader.blocks(first, first + self.rows_of(number)), first, self.scorer))

        return compute


class ShardReader:
    """Reads the rows of a shard in blocks of 16 MB, counted from its first row; only the last block may be shorter.

    Blocks are the same wherever the reading began, because the last bits of a score can depend on the size of its
    block. A shard that follows the one before is read on, because a compressed file cannot be entered in its middle.
    """

    def __init__(self, file: EmbeddingFile, most_rows: int) -> None:
        self._file, self._block_rows = file, max(1, min(most_rows, _BLOCK_BYTES // (4 * file.width)))
        self._next_row = -1
        self._ahead: Iterator[NDArray[np.float32]] = iter(())
        self._left = np.empty((0, file.width), dtype=np.float32)

    def blocks(self, first: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """Yield the rows first, first + 1, ..., stop - 1 of a shard."""
        if first != self._next_row:
            self._ahead, self._left = self._file.blocks(first, self._block_rows), self._left[:0]
        for row in range(first, stop, self._block_rows):
            self._next_row = min(row + self._block_rows, stop)
            yield self._taken(self._next_row - row)

    def _taken(self, count: int) -> NDArray[np.float32]:
        pieces = [self._left]
        while (short := count - sum(map(len, pieces))) > 0:
            pieces.append(next(self._ahead))
        pieces[-1], self._left = np.split(pieces[-1], [len(pieces[-1]) + short])
        filled = [piece for piece in pieces if len(piece)]
        return filled[0] if len(filled) == 1 else np.concatenate(filled)


def _scored(blocks: Iterator[NDArray[np.float32]], first: int, scorer: Scorer) -> Any:
    """Return the arrow table of one shard whose first row has the number `first`."""
    import pyarrow as pa

    scored = []
    for block in blocks:
        scored.append(_score(block, first, scorer))
        first += len(block)
    return pa.table({key: pa.concat_arrays([part[key] for part in scored]) for key in scored[0]})


def _as_parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _score(features: NDArray[np.float32], first: int, scorer: Scorer) -> dict[str, Any]:
    """Return the columns of one piece as arrow arrays; `REASON` is null for the rows that have a score."""
    import pyarrow as pa

    finite = np.isfinite(features).all(axis=1)
    good = features if finite.all() else features[finite]
    columns: dict[str, NDArray[Any]] = {}
    scored = np.ones(len(good), dtype=bool)
    # A finite row may still overflow; its score is then not finite, which is reported below.
    with np.errstate(over="ignore", invalid="ignore"):
        # If no row is good, a row of zeros still shows which columns the scorer gives.
        found = scorer(good) if len(good) else {k: v[:0] for k, v in scorer(np.zeros_like(features[:1])).items()}
    for name, values in found.items():
        if np.shape(values) != (len(good),):
            raise DimensionError(f"scores {name!r} must have shape ({len(good)},), got {np.shape(values)}")
        with np.errstate(over="ignore"):
            columns[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
        if values.dtype.kind == "f":
            scored &= np.isfinite(columns[name])
    why = np.full(len(features), None, dtype=object)
    why[~finite] = "the embedding is missing, of another width, or holds NaN or infinity"
    why[np.flatnonzero(finite)[~scored]] = "the score is not a finite number"
    place = np.full(len(features), -1)
    place[np.flatnonzero(finite)[scored]] = np.flatnonzero(scored)
    table: dict[str, Any] = {"row": pa.array(np.arange(first, first + len(features)))}
    table |= {name: _spread(values, place) for name, values in columns.items()}
    return table | {REASON: pa.array(why, pa.string())}


def _spread(values: NDArray[Any], place: NDArray[np.int64]) -> Any:
    """Return an arrow array of values[place], with NaN (or null if the values are no floats) at places of -1."""
    import pyarrow as pa

    absent = place < 0
    if not absent.any():
        return pa.array(values)
    if values.dtype.kind == "f":
        return pa.array(np.append(values, np.float32(np.nan))[place])
    return pa.array(values).take(pa.array(place, mask=absent))
