"""Records in (JSON, JSONL, CSV, parquet), outcomes in long form out: whole and checked, or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.tuning.outcomes.datasets import MAX_PROMPT_BYTES, Outcomes, read_outcomes

Record = Mapping[str, Any]

_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")


@dataclass(frozen=True)
class Answer:
    """One model's answer to a prompt, in the terms of `datasets`; either prompt or messages is set."""

    model: str
    score: float
    prompt: str | None = None
    messages: Sequence[Any] | None = None
    prompt_id: str | None = None
    group: str = ""
    cost_usd: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of folders, every file below them that can be read. Raises DataError for neither."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
            if not inside:
                raise DataError(f"folder {path} must hold {', '.join(_SUFFIXES)} files; found none.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist.")
    return found


def read_records(path: Path) -> list[tuple[str, Record]]:
    """The records of a file, each with where it stands for messages: `FILE: record 3`.

    JSON may be a list of objects, or one object. Raises DataError naming the line.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in {".jsonl", ".ndjson"}:
            values = list(_json_lines(path))
        elif suffix == ".json":
            loaded = json.loads(path.read_text("utf-8"))
            values = loaded if isinstance(loaded, list) else [loaded]
        elif suffix == ".csv":
            # Its default of 128 KiB a cell is less than a long chat.
            csv.field_size_limit(MAX_PROMPT_BYTES)
            with path.open(newline="", encoding="utf-8") as file:
                values = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
        elif suffix == ".parquet":
            import pyarrow.parquet

            values = pyarrow.parquet.read_table(path).to_pylist()
        else:
            hint = (
                " A pickle runs code when opened: convert it with pandas first."
                if suffix in {".pkl", ".pickle"}
                else ""
            )
            raise DataError(f"{path} must end in {', '.join(_SUFFIXES)}; got {suffix or 'no suffix'}.{hint}")
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as {suffix[1:]}: {error}.") from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"{path}: record {number} must be an object; got {type(value).__name__}.")
    return [(f"{path}: record {number}", value) for number, value in enumerate(values, start=1)]


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number} must be JSON: {error}.") from error


def field(record: Record, *names: str) -> Any:
    """The first of these fields that is there and not null."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def decoded(value: Any) -> Any:
    """A value that some exports hold as JSON text: the object or list itself."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def number(where: str, name: str, value: Any) -> float | None:
    """A number, also as text or true and false; None stays None. Raises DataError for anything else."""
    if value is None:
        return None
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {name} must be a number, got {value!r}.") from error


def read_scores(path: Path) -> dict[str, float]:
    """Scores by id, from records with `id` (or `custom_id`, `request_id`) and `score`."""
    found: dict[str, float] = {}
    for where, record in read_records(path):
        key, score = field(record, "id", "custom_id", "request_id"), number(where, "score", record.get("score"))
        if key is None or score is None:
            raise DataError(f"{where} must have id (or custom_id, request_id) and score; got {', '.join(record)}.")
        if str(key) in found:
            raise DataError(f"{where} repeats id {key!r}; keep one score for each.")
        found[str(key)] = score
    return found


def write_outcomes(answers: Sequence[Answer], out: Path) -> Outcomes:
    """Write answers as parquet or JSONL, by the suffix of `out`, and return them as `elle fit` would read them.

    They are read back before `out` comes to be: what is wrong with them is a DataError naming the row, and no file.
    """
    suffix = out.suffix.lower()
    if suffix not in {".parquet", ".jsonl"}:
        raise DataError(f"--out must end in .parquet or .jsonl; got {out.name}.")
    rows = _rows(answers)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".partial-{out.name}")
    try:
        if suffix == ".jsonl":
            partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        else:
            import pyarrow as pa
            import pyarrow.parquet

            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), partial)
        outcomes = read_outcomes(partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return outcomes


def _rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    chats = any(answer.messages is not None for answer in answers)
    with_ids = all(answer.prompt_id is not None for answer in answers)
    rows = []
    for one in answers:
        messages = one.messages if one.messages is not None else [{"role": "user", "content": one.prompt}]
        row: dict[str, Any] = {"prompt": one.prompt}
        if chats:
            row = {"messages": json.dumps(messages, ensure_ascii=False)}
        row |= {"prompt_id": one.prompt_id} if with_ids else {}
        row |= {"group": one.group, "model": one.model, "score": one.score}
        row |= {name: getattr(one, name) for name in ("cost_usd", "input_tokens", "output_tokens")}
        rows.append(row)
    return rows
