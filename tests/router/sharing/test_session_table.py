"""Processes share one table: what one writes the others read, and neither a kill nor a torn entry makes one wait."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from router.deciding.session_memory import AnswerMemory, SessionMemory
from router.deciding.settings import RouterSettings
from router.sharing.session_table import Entry, SessionTable, SharedBlock, shared_block

NAMES = ("small", "large")
KEY, OTHER = b"k" * 16, b"o" * 16


def remember_for_ever(block: SharedBlock, started: Connection) -> None:
    memory = SessionMemory(max_entries=64, ttl_s=3600, block=block)
    memory.remember("me", "first", "p", "large", 7)
    started.send(b"")
    while True:
        for number in range(100):
            memory.remember("me", str(number), "p", NAMES[number % 2], number)


def test_another_process_reads_what_one_wrote_and_goes_on_after_it_was_killed() -> None:
    context = multiprocessing.get_context("spawn")
    block = SharedBlock(SessionTable.n_bytes(64))
    mine = SessionMemory(max_entries=64, ttl_s=3600, block=block)
    theirs, started = context.Pipe()
    # More than one of them writes, so that entries are written over each other.
    writers = [context.Process(target=remember_for_ever, args=(block, started), daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    theirs.recv()
    ends = time.monotonic() + 1.0
    while time.monotonic() < ends:
        for number in range(100):
            held = mine.held("me", str(number), "p", NAMES)
            assert held is None or (held.candidate, held.input_tokens) == (NAMES[number % 2], number)
    for writer in writers:
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    mine.remember("me", "last", "p", "small", 1)
    assert mine.held("me", "last", "p", NAMES) is not None
    assert len(mine) <= 64


def test_a_half_written_entry_is_absent_and_its_slot_is_used_again() -> None:
    block = SharedBlock(SessionTable.n_bytes(2))
    table = SessionTable(block, 2)
    table.put(KEY, Entry(b"n" * 16, 5, 1.0))
    table.put(OTHER, Entry(b"n" * 16, 5, 9.0))
    at = block.memory.find(KEY)
    block.memory[at + 16 : at + 20] = b"torn"
    assert table.get(KEY) is None
    table.put(b"new " * 4, Entry(b"n" * 16, 5, 10.0))
    assert table.get(OTHER) is not None or table.get(b"new " * 4) is not None
    table.put(KEY, Entry(b"n" * 16, 6, 11.0))
    assert table.get(KEY) == Entry(b"n" * 16, 6, 11.0)


@pytest.mark.parametrize("at_s", [math.nan, math.inf, 1e300])
def test_a_slot_with_a_time_that_cannot_be_makes_room_first(at_s: float) -> None:
    table = SessionTable(SharedBlock(SessionTable.n_bytes(2)), 2)
    table.put(KEY, Entry(b"n" * 16, 5, at_s))
    table.put(OTHER, Entry(b"n" * 16, 5, 3.0))
    table.put(b"new " * 4, Entry(b"n" * 16, 5, 4.0))
    assert table.get(KEY) is None
    assert table.get(OTHER) == Entry(b"n" * 16, 5, 3.0)


def test_more_tokens_than_the_table_can_hold_are_the_most_that_it_can() -> None:
    table = SessionTable(SharedBlock(SessionTable.n_bytes(1)), 1)
    table.put(KEY, Entry(b"n" * 16, 2**40, 1.0))
    assert table.get(KEY) == Entry(b"n" * 16, 2**32 - 1, 1.0)


def test_sessions_and_responses_lie_apart_and_nothing_lies_in_the_clear() -> None:
    block = shared_block(100)
    memory = AnswerMemory(RouterSettings(max_sessions=100, shared_sessions=block), time.monotonic)
    memory.sessions.remember("caller", "session-id-of-somebody", "p", "small", 3)
    assert memory.responses.held("caller", "session-id-of-somebody", "p", NAMES) is None
    held = memory.sessions.held("caller", "session-id-of-somebody", "p", NAMES)
    assert held is not None
    assert held.candidate == "small"
    everything = block.memory[:]
    assert not any(text in everything for text in (b"session-id", b"caller", b"small"))


def test_what_another_replica_made_is_learnt_unless_something_newer_is_here() -> None:
    memory = SessionMemory(max_entries=8, ttl_s=100, clock=lambda: 50.0)
    told: list[tuple[bytes, Entry]] = []
    memory.listener = lambda key, entry: told.append((key, entry))
    memory.remember("me", "s", "p", "small", 3)
    (key, entry) = told.pop()
    other = SessionMemory(max_entries=8, ttl_s=100, clock=lambda: 60.0, block=None)
    other.learn(key, entry)
    other.learn(key, Entry(entry.name, 1, 40.0))
    assert other._table.get(key) == entry
    other.learn(key, Entry(entry.name, 9, 55.0))
    assert other._table.get(key) == Entry(entry.name, 9, 55.0)
