"""Encode the prompts of a file as the service would, and write their embeddings to a file in the same order."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from probes.artifacts import store as artifact
from probes.bounded.parquet import open_parquet
from probes.bounded.text import path_fault
from probes.encoders.exported import pinned_here
from probes.encoders.load import load_encoder
from probes.encoders.spec import Encoder, EncoderSpec, FloatArray, encode_all, parse_spec
from probes.errors import DataError, EncoderMismatchError
from router.tuning.outcomes.feature_cache import Progress, encoder_spec
from router.tuning.outcomes.outcome_rows import read_ask
from router.tuning.outcomes.records import SUFFIXES, Place, Row, read_rows, read_text

#: Rows that are encoded and written at a time. No more embeddings are in memory at once.
_ROWS = 1000

#: Prompts that `elle score` encodes and scores before it keeps the result. A shard takes seconds.
SHARD_OF_PROMPTS = 1000

_SUFFIXES = (".npy", ".parquet")

#: The suffix of a file with a prompt on each line.
_TEXT = ".txt"


@dataclass(frozen=True)
class EmbedSummary:
    """Describes what `elle embed` wrote.

    Attributes:
        out: the embedding file. rows: its rows. width: numbers in each row. encoder: identity of the encoder.
        bad_rows: rows that hold no prompt. bad_rows_file: the list of these; None if there are none.
    """

    out: str
    rows: int
    width: int
    encoder: str
    bad_rows: int
    bad_rows_file: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def embed_prompts(
    prompts: Path,
    out: Path,
    *,
    encoder: str,
    probe_dir: Path | None,
    encoder_dir: Path | None,
    on_progress: Progress | None,
) -> EmbedSummary:
    """Write an embedding for each row of the file `prompts` to the file `out`, in the order of the rows.

    prompts: a `.txt` file with a prompt on each line, or a file that `read_rows` reads, with a column `prompt` or
    `messages`. out: `.npy`, or `.parquet` with the columns `row`, `embedding` and, if the rows have one, `prompt_id`.
    encoder: built-in name or path of a JSON encoder spec; if a probe is given, its encoder is used instead. A row
    without a prompt gets NaN and is listed in a file beside `out`.

    Raises ArtifactError, DataError or EncoderError, and then writes nothing.
    """
    if out.suffix not in _SUFFIXES:
        raise DataError(f"--out must end in {' or '.join(_SUFFIXES)}; got {out.name}.")
    spec = (
        pinned_here(parse_spec(encoder), encoder_dir) if probe_dir is None else encoder_spec(artifact.load(probe_dir))
    )
    rows = _rows(prompts)
    texts, bad = _texts(rows)
    _require_prompts(prompts, len(rows), bad)
    loaded = _load(spec, encoder_dir)
    with _embedding_file(out, rows, loaded.n_features, spec) as write:
        for first in range(0, len(texts), _ROWS):
            write(_encoded(loaded, texts[first : first + _ROWS]))
            if on_progress is not None:
                on_progress(min(first + _ROWS, len(texts)), len(texts))
    listed = out.with_name(f"{out.name}.bad-rows.csv")
    if bad:
        with listed.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("row", "why"), *bad.items()])
    else:
        listed.unlink(missing_ok=True)
    return EmbedSummary(str(out), len(texts), loaded.n_features, spec.identity, len(bad), str(listed) if bad else None)


def holds_prompts(path: Path) -> bool:
    """Return whether a file holds prompts rather than embeddings: a parquet file does by the names of its columns."""
    if path.suffix.lower() != ".parquet":
        return path.suffix.lower() in (*SUFFIXES, _TEXT)
    if path_fault(path) is not None:
        return False
    with open_parquet(path) as file:
        names = set(file.schema_arrow.names)
    return "embedding" not in names and not names.isdisjoint(("prompt", "messages"))


@dataclass(frozen=True)
class PromptSource:
    """Names a file of prompts and the encoder that turns them into embeddings, for `score_file`.

    Attributes:
        path: the file; see `embed_prompts`. spec: the encoder, whose features have `width` numbers.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    path: Path
    spec: EncoderSpec
    width: int
    encoder_dir: Path | None = None

    @property
    def settings(self) -> str:
        """The identity of the encoder."""
        return self.spec.identity

    def open(self, threads: int | None = None) -> _EncodedPrompts:
        """Read the prompts; the encoder is loaded when the first embeddings are wanted.

        Raises DataError for a file without prompts.
        """
        rows = _rows(self.path)
        texts, bad = _texts(rows)
        _require_prompts(self.path, len(rows), bad)
        return _EncodedPrompts(self, texts, threads)


@dataclass(frozen=True)
class _EncodedPrompts:
    """The embeddings of prompts as an `EmbeddingFile`; they are computed when they are read."""

    source: PromptSource
    texts: Sequence[str | None]
    threads: int | None

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def width(self) -> int:
        return self.source.width

    @cached_property
    def encoder(self) -> Encoder:
        return _load(self.source.spec, self.source.encoder_dir)

    def blocks(self, start: int, block_rows: int) -> Iterator[FloatArray]:
        for first in range(start, self.rows, block_rows):
            yield _encoded(self.encoder, self.texts[first : first + block_rows], self.threads)


def _load(spec: EncoderSpec, encoder_dir: Path | None) -> Encoder:
    loaded = load_encoder(spec, encoder_dir)
    if loaded.spec.identity != spec.identity:
        raise EncoderMismatchError(
            f"the embeddings must be of encoder {spec.identity[:12]} ({spec.precision}); this machine computes "
            f"{loaded.spec.identity[:12]} ({loaded.spec.precision}). Fit the probe on this machine, or embed elsewhere."
        )
    return loaded


def _require_prompts(path: Path, n_rows: int, bad: Mapping[int, str]) -> None:
    if len(bad) == n_rows:
        raise DataError(f"{path} must hold prompts, and has none: {next(iter(bad.values()), 'it is empty')}")


def _rows(path: Path) -> list[Row | str]:
    """Return the rows of a file in their order; in place of a row that cannot be read, return what is wrong with it."""
    if path.suffix.lower() == _TEXT:
        # Some spreadsheets end lines with a carriage return alone.
        lines = re.split(r"\r\n?|\n", read_text(path))
        lines = lines[:-1] if lines[-1] == "" else lines
        return [Row(Place(path, "line", n), {"prompt": line}) for n, line in enumerate(lines, start=1)]
    unreadable: list[tuple[Place, str]] = []
    found = read_rows(path, lambda place, problem: unreadable.append((place, problem)))
    numbered: dict[int, Row | str] = {row.place.number: row for row in found}
    numbered |= {place.number: f"{place} {problem}." for place, problem in unreadable}
    return [numbered[number] for number in sorted(numbered)]


def _texts(rows: Sequence[Row | str]) -> tuple[list[str | None], dict[int, str]]:
    """Return the text of each row, or None if it has no text, and for such rows by number, from 0, why."""
    texts: list[str | None] = []
    bad: dict[int, str] = {}
    for number, row in enumerate(rows):
        if isinstance(row, str):
            texts.append(None)
            bad[number] = row
            continue
        try:
            name = "messages" if row.values.get("prompt") is None and "messages" in row.values else "prompt"
            texts.append(read_ask(row.place, name, row.values.get(name)).text)
        except DataError as error:
            texts.append(None)
            bad[number] = str(error)
    return texts, bad


def _encoded(encoder: Encoder, texts: Sequence[str | None], threads: int | None = None) -> FloatArray:
    """Return the features (n, d) of n texts, and encode each distinct text once; a missing text gets NaN."""
    distinct = list(dict.fromkeys(text for text in texts if text is not None))
    features = np.full((len(distinct) + 1, encoder.n_features), np.nan, dtype=np.float32)
    if distinct:
        features[:-1] = encode_all(encoder, distinct, workers=threads)
    places = {text: place for place, text in enumerate(distinct)}
    return features[[-1 if text is None else places[text] for text in texts]]


@contextmanager
def _embedding_file(
    out: Path, rows: Sequence[Row | str], width: int, spec: EncoderSpec
) -> Iterator[Callable[[FloatArray], None]]:
    """Yield a function that appends embeddings to a file. The file gets its name when all are written."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        with (
            _npy(unfinished, len(rows), width) if out.suffix == ".npy" else _parquet(unfinished, rows, width, spec) as f
        ):
            yield f
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _npy(path: Path, n: int, width: int) -> Iterator[Callable[[FloatArray], None]]:
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, width)}
        np.lib.format.write_array_header_1_0(file, header)

        def write(features: FloatArray) -> None:
            file.write(features.astype("<f4").tobytes())

        yield write


@contextmanager
def _parquet(
    path: Path, rows: Sequence[Row | str], width: int, spec: EncoderSpec
) -> Iterator[Callable[[FloatArray], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [None if isinstance(row, str) else row.values.get("prompt_id") for row in rows]
    fields = [("row", pa.int64()), ("embedding", pa.list_(pa.float32(), width))]
    if any(one is not None for one in ids):
        fields.insert(1, ("prompt_id", pa.string()))
    schema = pa.schema(fields, metadata={"elle.encoder": spec.identity})
    first = 0

    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=["prompt_id"]) as writer:

        def write(features: FloatArray) -> None:
            nonlocal first
            numbers = np.arange(first, first + len(features))
            columns = {"row": pa.array(numbers)}
            if "prompt_id" in schema.names:
                columns["prompt_id"] = pa.array([None if ids[n] is None else str(ids[n]) for n in numbers], pa.string())
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width)
            writer.write_table(pa.table(columns, schema=schema))
            first += len(features)

        yield write
