"""The spool gives back every row that it acknowledged, once and in order, whatever happens to its files."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.ledger.records import LedgerRow
from router.ledger.spool import Spool, SpoolFullError
from tests.router.ledger.rows import numbers, row


def replayed(folder: Path) -> list[int]:
    """Return what a new process reads from the spool."""
    found: list[LedgerRow] = []
    Spool(folder, 10**6).replay(found.extend)
    return numbers(found)


def test_rows_come_back_in_order_with_bytes_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    features = LedgerRow("decisions", {"decision_id": "1", "features": b"\x00\xff", "kinds": {"known": True}})
    spool.append([row(0), row(1)])
    spool.append([features])
    found: list[LedgerRow] = []
    assert spool.replay(found.extend) == 3
    assert numbers(found[:2]) == [0, 1]
    assert found[2] == features
    assert spool.is_empty
    assert spool.replay(found.extend) == 0


def test_segments_of_a_process_that_ended_are_read_oldest_first(tmp_path: Path) -> None:
    for number in range(3):
        spool = Spool(tmp_path, 10**6)
        spool.append([row(number)])
        spool.close()
    assert replayed(tmp_path) == [0, 1, 2]


def test_a_segment_that_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    writing = Spool(tmp_path, 10**6)
    writing.append([row(7)])
    assert replayed(tmp_path) == []
    writing.close()
    assert replayed(tmp_path) == [7]


def test_a_line_that_was_cut_short_was_never_acknowledged_and_costs_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    spool.append([row(0), row(1)])
    spool.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes()[:-10])
    assert replayed(tmp_path) == [0]
    assert list(tmp_path.iterdir()) == []


def test_a_spoiled_line_is_counted_and_its_segment_kept_for_people(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    spool.append([row(0), row(1), row(2)])
    spool.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes().replace(b'"number":1', b'"number":8'))
    found: list[LedgerRow] = []
    reader = Spool(tmp_path, 10**6)
    reader.replay(found.extend)
    assert numbers(found) == [0, 2]
    assert reader.n_spoiled == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".spoiled"]


def test_what_write_did_not_take_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10**6)
    spool.append([row(number) for number in range(501)])
    taken: list[LedgerRow] = []

    def fail_at_the_second(rows: Sequence[LedgerRow]) -> None:
        if taken:
            raise OSError("down")
        taken.extend(rows)

    with pytest.raises(OSError, match="down"):
        spool.replay(fail_at_the_second)
    assert replayed(tmp_path) == list(range(501))


def test_the_bound_counts_the_segments_of_all_processes(tmp_path: Path) -> None:
    one, other = Spool(tmp_path, 600), Spool(tmp_path, 600)
    one.append([row(0), row(1)])
    with pytest.raises(SpoolFullError):
        other.append([row(2), row(3)])
    one.close()
    assert replayed(tmp_path) == [0, 1]


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 10**6)
    spool.append([row(0)])
    write = os.write

    def write_a_little(file: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:50])

    monkeypatch.setattr(os, "write", write_a_little)
    with pytest.raises(OSError, match="No space"):
        spool.append([row(1)])
    monkeypatch.undo()
    spool.append([row(2)])
    spool.close()
    assert replayed(tmp_path) == [0, 2]


def test_many_rows_make_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.ledger.spool._SEGMENT_BYTES", 100)
    spool = Spool(tmp_path, 10**6)
    for number in range(3):
        spool.append([row(number)])
    assert len(list(tmp_path.iterdir())) == 3
    assert replayed(tmp_path) == [0, 1, 2]
