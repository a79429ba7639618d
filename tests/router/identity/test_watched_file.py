"""Watched files: a change is taken over, and a change for the worse is not."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.identity.watched_file import WatchedFiles, keep_fresh


class Numbers:
    """Reads a number out of two files, which must be the same."""

    def __init__(self, folder: Path) -> None:
        self.paths = (folder / "a", folder / "b")

    def write(self, *numbers: str) -> None:
        for path, number in zip(self.paths, numbers, strict=False):
            # A new file has a new inode, so that no clock is too coarse to see the change.
            path.with_suffix(".new").write_text(number, "utf-8")
            path.with_suffix(".new").replace(path)

    def load(self) -> int:
        first, second = (path.read_text("utf-8") if path.exists() else "" for path in self.paths)
        if first != second or not first.isdigit():
            raise ConfigError("the numbers differ.")
        return int(first)


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    numbers = Numbers(tmp_path)
    numbers.write("1", "1")
    return numbers


def test_a_change_is_taken_over(numbers: Numbers) -> None:
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    assert (watched.value, watched.refresh()) == (1, False)
    numbers.write("2", "2")
    assert (watched.refresh(), watched.value, watched.refresh(), watched.failures) == (True, 2, False, 0)


def test_a_bad_change_leaves_the_last_good_value_and_is_said_once(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    numbers.write("x", "x")
    with caplog.at_level(logging.ERROR):
        assert [watched.refresh() for _ in range(5)] == [False] * 5
    assert (watched.value, watched.failures) == (1, 1)
    assert [record.message for record in caplog.records] == [
        "the numbers changed but cannot be used; the old ones stay in force: the numbers differ."
    ]
    numbers.write("3", "3")
    assert (watched.refresh(), watched.value) == (True, 3)


def test_two_files_replaced_one_after_the_other_are_no_failure(numbers: Numbers) -> None:
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    numbers.write("2")
    assert (watched.refresh(), watched.value) == (False, 1)
    numbers.write("2", "2")
    assert (watched.refresh(), watched.value, watched.failures) == (True, 2, 0)


def test_a_file_that_is_gone_counts_as_a_bad_change(numbers: Numbers) -> None:
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    numbers.paths[0].unlink()
    assert [watched.refresh(), watched.refresh()] == [False, False]
    assert (watched.value, watched.failures) == (1, 1)


def test_a_change_that_keeps_its_size_and_its_inode_is_seen(numbers: Numbers) -> None:
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    for path in numbers.paths:
        path.write_text("7", "utf-8")
        os.utime(path, ns=(1, 1))
    assert (watched.refresh(), watched.value) == (True, 7)


async def test_an_unexpected_fault_does_not_end_the_watch(numbers: Numbers) -> None:
    faults = []

    def fail() -> int:
        faults.append(1)
        raise ZeroDivisionError

    broken = WatchedFiles("numbers", numbers.paths, numbers.load)
    broken._load = fail  # type: ignore[method-assign]
    watched = WatchedFiles("numbers", numbers.paths, numbers.load)
    numbers.write("4", "4")
    watching = [asyncio.create_task(keep_fresh(one, every_s=0.01)) for one in (broken, watched)]
    while watched.value != 4 or len(faults) < 2:  # noqa: ASYNC110 - a file tells nobody that it changed
        await asyncio.sleep(0.01)
    for task in watching:
        task.cancel()
