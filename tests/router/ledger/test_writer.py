"""The writer loses nothing that it acknowledged, doubles nothing, counts what it drops, and nobody waits for it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.ledger.records import LedgerRow
from router.ledger.spool import Spool
from router.ledger.writer import LedgerDownError, LedgerWriter
from tests.router.ledger.rows import FakeSink, row, wait_until, writer_of


def put(writer: LedgerWriter, *wanted: int) -> None:
    for number in wanted:
        writer.put(lambda number=number: row(number))  # type: ignore[misc]


@pytest.fixture
def sink() -> FakeSink:
    return FakeSink()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.ledger.writer._RETRY_S", 0.01)
    monkeypatch.setattr("router.ledger.writer._LONGEST_RETRY_S", 0.02)


def test_rows_arrive_in_order_and_closing_waits_for_them(sink: FakeSink, tmp_path: Path) -> None:
    writer = writer_of(sink, tmp_path)
    put(writer, *range(700))
    writer.close()
    assert sink.numbers == list(range(700))
    assert writer.counts.written == 700
    assert sink.is_closed


def test_while_the_database_is_down_rows_are_spooled_and_then_replayed_before_new_ones(
    sink: FakeSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writer_of(sink, tmp_path)
    sink.is_down = True
    put(writer, 0, 1)
    writer.flush().result(60)
    assert (writer.counts.spooled, writer.counts.is_down, sink.numbers) == (2, True, [])
    assert writer.counts.spool_bytes > 0
    assert writer.counts.lag_s > 0
    sink.is_down = False
    put(writer, 2)
    wait_until(lambda: sink.numbers == [0, 1, 2])
    writer.close()
    counts = writer.counts
    assert (counts.written, counts.dropped, counts.spool_bytes, counts.lag_s) == (3, 0, 0, 0)
    assert counts.replayed >= 2
    assert "its database takes no rows (it is down)" in caplog.text


def test_what_a_killed_process_spooled_the_next_one_writes_without_new_rows(sink: FakeSink, tmp_path: Path) -> None:
    sink.is_down = True
    first = writer_of(sink, tmp_path)
    put(first, 0, 1)
    first.close()
    sink.is_down = False
    second = writer_of(sink, tmp_path)
    wait_until(lambda: sink.numbers == [0, 1])
    second.close()


def test_without_database_and_spool_rows_wait_in_memory_and_the_rest_is_dropped_and_counted(
    sink: FakeSink, tmp_path: Path
) -> None:
    sink.is_down = True
    writer = writer_of(sink, tmp_path, queue_rows=3, spool_bytes=1)
    put(writer, 0)
    wait_until(lambda: writer.counts.is_down)
    put(writer, 1, 2, 3, 4)
    assert (writer.counts.waiting, writer.counts.dropped) == (3, 2)
    sink.is_down = False
    wait_until(lambda: sink.numbers == [0, 1, 2])
    put(writer, 5)
    writer.close()
    assert sink.numbers == [0, 1, 2, 5]
    assert [one.values["detail"] for one in sink.rows.values() if one.values["kind"] == "rows_dropped"] == [{"rows": 2}]


def test_what_cannot_be_written_at_the_end_is_counted(
    sink: FakeSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink.is_down = True
    writer = writer_of(sink, tmp_path, spool_bytes=1)
    put(writer, 0, 1)
    writer.close()
    assert writer.counts.dropped == 2
    assert "2 rows of the ledger are lost" in caplog.text


def test_a_durable_row_is_promised_only_when_it_is_kept(sink: FakeSink, tmp_path: Path) -> None:
    writer = writer_of(sink, tmp_path, spool_bytes=300)
    writer.put_durably(row(0)).result(60)
    assert sink.numbers == [0]
    sink.is_down = True
    writer.put_durably(row(1)).result(60)
    assert writer.counts.spooled == 1
    with pytest.raises(LedgerDownError):
        writer.put_durably(row(2)).result(60)
    sink.is_down = False
    wait_until(lambda: not writer.counts.is_down)
    writer.close()
    assert sink.numbers == [0, 1]
    with pytest.raises(LedgerDownError):
        writer.put_durably(row(3)).result(60)


def test_a_row_that_no_database_takes_costs_no_other(sink: FakeSink, tmp_path: Path) -> None:
    sink.refused = {1}
    writer = writer_of(sink, tmp_path)
    put(writer, 0, 1, 2)
    writer.close()
    assert sink.numbers == [0, 2]
    assert (writer.counts.written, writer.counts.dropped) == (2, 1)


def test_a_row_that_cannot_be_made_costs_no_other(
    sink: FakeSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> LedgerRow:
        raise TypeError("no row")

    writer = writer_of(sink, tmp_path)
    writer.put(broken)
    put(writer, 1)
    writer.close()
    assert sink.numbers == [1]
    assert writer.counts.dropped == 1
    assert "could not be made" in caplog.text


def test_a_row_that_cannot_be_made_counts_once_however_often_the_rows_beside_it_are_tried(
    sink: FakeSink, tmp_path: Path
) -> None:
    def broken() -> LedgerRow:
        raise TypeError("no row")

    sink.is_down = True
    writer = writer_of(sink, tmp_path, spool_bytes=1)
    writer.put(broken)
    put(writer, 1)
    for _ in range(3):
        with pytest.raises(LedgerDownError):
            writer.flush().result(60)
    sink.is_down = False
    wait_until(lambda: sink.numbers == [1])
    writer.close()
    assert writer.counts.dropped == 1


def test_what_a_row_is_made_of_is_forgotten_although_neither_database_nor_spool_takes_it(
    sink: FakeSink, tmp_path: Path
) -> None:
    class Prompt:
        """Stands for the text of a prompt."""

    def put_made_of(prompt: Prompt) -> weakref.ref[Prompt]:
        writer.put(lambda: row(int(prompt is None)))
        return weakref.ref(prompt)

    sink.is_down = True
    writer = writer_of(sink, tmp_path, spool_bytes=1)
    prompts = [put_made_of(Prompt()) for _ in range(600)]
    with pytest.raises(LedgerDownError):
        writer.flush().result(60)
    wait_until(lambda: not any(prompt() for prompt in prompts))
    # A batch that is tried again at this moment is not in the queue.
    wait_until(lambda: writer.counts.waiting == 600)
    sink.is_down = False
    wait_until(lambda: writer.counts.written == 600)
    writer.close()


def test_rows_that_come_during_a_commit_are_committed_together(tmp_path: Path) -> None:
    commits: list[int] = []

    class Busy(FakeSink):
        """Puts one more row during each commit, as a busy service does."""

        def write(self, rows: Sequence[LedgerRow]) -> int:
            commits.append(len(rows))
            if len(commits) < 5:
                put(writer, 10 + len(commits))
            return super().write(rows)

    sink = Busy()
    writer = LedgerWriter(sink, Spool(tmp_path / "spool", 10**6), queue_rows=1000, flush_s=0.5)
    put(writer, 0)
    wait_until(lambda: len(commits) == 1)
    put(writer, 1, 2)
    wait_until(lambda: len(commits) == 2)
    assert commits[1] == 3
    writer.close()


def test_an_error_that_nobody_expected_counts_as_a_database_that_is_down(
    sink: FakeSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(sink, "write", broken)
    writer = writer_of(sink, tmp_path)
    put(writer, 0)
    writer.flush().result(60)
    assert writer.counts.spooled == 1
    assert "in a way that nobody expected" in caplog.text
    monkeypatch.undo()
    writer.close()
    assert sink.numbers in ([], [0])
    writer = writer_of(sink, tmp_path)
    wait_until(lambda: sink.numbers == [0])
    writer.close()


def test_many_threads_may_put_rows(sink: FakeSink, tmp_path: Path) -> None:
    writer = writer_of(sink, tmp_path, queue_rows=10_000)
    threads = [threading.Thread(target=put, args=(writer, *range(start, start + 200))) for start in (0, 200, 400, 600)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(sink.numbers) == list(range(800))


def test_tidying_is_done_at_the_start_and_a_failure_is_no_trouble(sink: FakeSink, tmp_path: Path) -> None:
    writer = writer_of(sink, tmp_path)
    wait_until(lambda: sink.n_tidied == 1)
    writer.close()
