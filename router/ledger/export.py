"""Write the tables of a ledger as parquet files, in constant memory (`export_ledger`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from router.errors import ConfigError
from router.ledger.reader import LedgerReader
from router.ledger.tables import metadata
from router.times import first_id_at

#: Rows that are read and written at a time.
_ROWS = 2000

#: For each table the column whose ids say how old a row is.
_AGES = {"decisions": "decision_id", "outcomes": "decision_id", "feedback": "decision_id", "events": "event_id"}


def export_ledger(
    reader: LedgerReader, folder: Path, since: float | None = None, tell: Callable[[str, int, int], None] | None = None
) -> dict[str, int]:
    """Write `decisions.parquet`, `outcomes.parquet`, `feedback.parquet` and `events.parquet` into a folder.

    Values that are JSON are written as text. Rows are in the order of their ids. Only the owner may read the files, as
    only the owner may read a ledger. They appear when all of them are whole.

    Args:
        reader: the ledger.
        folder: where the files are written; it is made.
        since: rows from this time on, in seconds since 1970; None writes all.
        tell: is told which table is being written, and how many rows of how many are.

    Returns the number of rows of each table. Raises ConfigError if pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(
            "exporting needs pyarrow, which is not installed; install it with `pip install 'elle-router[train]'`."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    # This makes a folder that nobody else may enter.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as draft:
        written = _write(pa, pq, reader, Path(draft), since, tell)
        for name in written:
            (Path(draft) / _file(name)).replace(folder / _file(name))
    return written


def _file(table: str) -> str:
    return f"{table}.parquet"


def _write(
    pa: Any,
    pq: Any,
    reader: LedgerReader,
    folder: Path,
    since: float | None,
    tell: Callable[[str, int, int], None] | None,
) -> dict[str, int]:
    """Write every table into a folder, and return the number of rows of each."""
    written = {}
    for name, age in _AGES.items():
        table = metadata.tables[name]
        wanted = table.c[age] >= ("" if since is None else first_id_at(since))
        schema = pa.schema([(column.name, _arrow_type(pa, column)) for column in table.columns])
        path = folder / _file(name)
        path.touch(mode=0o600)
        with reader.reading() as connection, pq.ParquetWriter(path, schema) as file:
            total = connection.execute(sa.select(sa.func.count()).select_from(table).where(wanted)).scalar_one()
            query = sa.select(table).where(wanted).order_by(*table.primary_key.columns)
            done = 0
            for part in connection.execution_options(yield_per=_ROWS).execute(query).mappings().partitions():
                file.write_table(pa.Table.from_pylist([_plain(row) for row in part], schema))
                done += len(part)
                if tell is not None:
                    tell(name, done, total)
        written[name] = done
    return written


def _arrow_type(pa: Any, column: sa.Column[Any]) -> Any:
    kinds = (
        (sa.Boolean, pa.bool_()),
        (sa.BigInteger, pa.int64()),
        (sa.Double, pa.float64()),
        (sa.LargeBinary, pa.binary()),
    )
    return next((arrow for kind, arrow in kinds if isinstance(column.type, kind)), pa.string())


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        for name, value in row.items()
    }
