"""Find the files that an import reads, and write the outcomes and the list of rows that were left out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from probes.bounded.text import os_fault, path_fault
from probes.errors import DataError
from router.tuning.outcomes.adapters.collection import ImportedAnswer, LeftOutRow
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.records import SUFFIXES

T = TypeVar("T")

_OUT_SUFFIXES = (".parquet", ".jsonl")


def expand(paths: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Return the files to read, each once; a folder stands for every readable file below it.

    Hidden files are not read, and neither is what an earlier import wrote to `out`, if that is given. Raises
    DataError for a path that does not exist, for a folder without readable files, and for one that holds packed files.
    """
    found: list[Path] = []
    written = set() if out is None else {out.resolve(), left_out_file(out).resolve()}
    for path in paths:
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.is_file() and file.resolve() not in written)
            inside = sorted(file for file in files if not file.name.startswith("."))
            readable = [file for file in inside if file.suffix.lower() in SUFFIXES]
            if packed := [file for file in inside if file.suffix.lower() in {".gz", ".zst", ".zip"}]:
                raise DataError(
                    f"{packed[0]} is packed and would be left out ({len(packed)} such files); unpack it first."
                )
            if not readable:
                raise DataError(f"folder {path} must hold {', '.join(SUFFIXES)} files; found none.")
            found += readable
        elif (fault := path_fault(path)) is None:
            found.append(path)
        else:
            raise DataError(f"{path} {fault}.")
    return list({path.resolve(): path for path in found}.values())


def check_out(out: Path, *, force: bool) -> None:
    """Raise DataError if `out` has another suffix, or if it exists and must not be replaced."""
    if out.suffix.lower() not in _OUT_SUFFIXES:
        raise DataError(f"--out must end in {' or '.join(_OUT_SUFFIXES)}; got {out.name}.")
    if there := [path for path in (out, left_out_file(out)) if path.exists()]:
        if not force:
            raise DataError(f"{there[0]} exists; give --force to replace it, or another --out.")
        if folders := [path for path in there if not path.is_file()]:
            raise DataError(f"{folders[0]} must be a file to be replaced. Choose another --out.")


def left_out_file(out: Path) -> Path:
    """Return the path, beside `out`, of the list of rows that were left out."""
    return out.with_name(f"{out.stem}.left-out.jsonl")


def write_outcomes(answers: Sequence[tuple[ImportedAnswer, float]], out: Path) -> Outcomes:
    """Write answers with their quality as parquet or JSONL, by the suffix of `out`; return them as outcomes.

    Before `out` gets its name, it is read as `elle fit` reads it. Raises DataError if that fails.
    """
    rows = _rows(answers)

    def write(partial: Path) -> Outcomes:
        if out.suffix.lower() == ".jsonl":
            partial.write_bytes(_json_lines(rows))
        else:
            import pyarrow as pa
            import pyarrow.parquet

            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), partial)
        try:
            return read_outcomes(partial)
        except DataError as error:
            # The user knows `out`, and not the temporary file.
            raise DataError(str(error).replace(str(partial), str(out))) from error

    return _in_place(out, write)


def write_left_out(left_out: Sequence[LeftOutRow], out: Path) -> Path | None:
    """Write the list of rows that were left out beside `out`, and return its path, or None if no row was."""
    path = left_out_file(out)
    if not left_out:
        path.unlink(missing_ok=True)
        return None
    rows = [
        {"file": str(one.place.path), one.place.unit: one.place.number, "why": one.why, "detail": one.detail}
        for one in left_out
    ]
    _in_place(path, lambda partial: partial.write_bytes(_json_lines(rows)))
    return path


def _in_place(out: Path, write: Callable[[Path], T]) -> T:
    """Let `write` make a file under a temporary name in the same folder, and rename it when it is complete."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".elle-") as folder:
            partial = Path(folder) / out.name
            found = write(partial)
            partial.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {os_fault(error)}.") from error
    return found


def _json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    return "".join(lines).encode("utf-8", "backslashreplace")


def _rows(answers: Sequence[tuple[ImportedAnswer, float]]) -> list[dict[str, Any]]:
    chats = any(answer.messages is not None for answer, _ in answers)
    with_ids = all(answer.prompt_id is not None for answer, _ in answers)
    with_times = any(answer.asked_at is not None for answer, _ in answers)
    rows = []
    for one, score in answers:
        messages = one.messages if one.messages is not None else [{"role": "user", "content": one.prompt}]
        row: dict[str, Any] = {"prompt": one.prompt}
        if chats:
            row = {"messages": json.dumps(messages, ensure_ascii=False, default=str)}
        row |= {"prompt_id": one.prompt_id} if with_ids else {}
        row |= {"group": one.group, "model": one.model, "score": score}
        row |= {"timestamp": one.asked_at} if with_times else {}
        row |= {name: getattr(one, name) for name in ("cost_usd", "input_tokens", "output_tokens")}
        rows.append(row)
    return rows
