"""Watched files: a change is taken over, a change for the worse is not, and a bad state is tried again."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from router.errors import ConfigError
from router.identity.token_book import TokenBook
from router.watched_files import LOOK_S, MOST_RETRY_S, Attempts, WatchedFiles, keep_fresh
from tests.router.identity.guarded import add_token


class Numbers:
    """Reads a number out of two files, which must be the same. A third file, which nobody watches, may forbid it."""

    def __init__(self, folder: Path) -> None:
        self.paths = (folder / "a", folder / "b")
        self.forbidden = folder / "forbidden"
        self.now, self.tries = 0.0, 0

    def write(self, *numbers: str) -> None:
        for path, number in zip(self.paths, numbers, strict=False):
            # A new file has a new inode, so that no clock is too coarse to see the change.
            path.with_suffix(".new").write_text(number, "utf-8")
            path.with_suffix(".new").replace(path)

    def load(self) -> int:
        self.tries += 1
        if self.forbidden.exists():
            raise ConfigError("it is forbidden.")
        first, second = (path.read_text("utf-8") if path.exists() else "" for path in self.paths)
        if first != second or not first.isdigit():
            raise ConfigError("the numbers differ.")
        return int(first)

    def watched(self, **rest: Any) -> WatchedFiles[int]:
        return WatchedFiles("numbers", self.paths, self.load, clock=lambda: self.now, **rest)

    def looks(self, watched: WatchedFiles[int], n: int = 2) -> list[bool]:
        """Look n times, a second apart."""
        found = []
        for _ in range(n):
            self.now += LOOK_S
            found.append(watched.refresh())
        return found


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    numbers = Numbers(tmp_path)
    numbers.write("1", "1")
    return numbers


def test_a_change_is_taken_over_once_it_looks_the_same_twice(numbers: Numbers) -> None:
    watched = numbers.watched()
    assert (watched.value, numbers.looks(watched)) == (1, [False, False])
    numbers.write("2", "2")
    assert numbers.looks(watched, 3) == [False, True, False]
    assert (watched.value, watched.failures, numbers.tries) == (2, 0, 2)


def test_two_files_replaced_one_after_the_other_are_no_failure(numbers: Numbers) -> None:
    watched = numbers.watched()
    numbers.write("2")
    numbers.looks(watched, 1)
    numbers.write("2", "2")
    assert numbers.looks(watched) == [False, True]
    assert (watched.value, watched.failures) == (2, 0)


def test_a_bad_state_is_tried_ever_more_rarely_and_each_error_is_said_once(
    numbers: Numbers, caplog: pytest.LogCaptureFixture
) -> None:
    watched = numbers.watched()
    place = f"the numbers in {numbers.paths[0]}, {numbers.paths[1]}"
    numbers.write("x", "x")
    assert not any(numbers.looks(watched, 200))
    # After 1, 2, 4, 8, 16 and then every 30 seconds; one try was the first one.
    assert 200 / MOST_RETRY_S < numbers.tries - 1 < 200 / MOST_RETRY_S + 6
    assert (watched.value, watched.failures) == (1, numbers.tries - 1)
    numbers.forbidden.touch()
    numbers.looks(watched, 100)
    numbers.forbidden.unlink()
    numbers.write("3", "3")
    assert numbers.looks(watched) == [False, True]
    assert (watched.value, watched.error) == (3, "")
    assert [record.message for record in caplog.records] == [
        f"{place} cannot be used, and the last good state stays: the numbers differ.",
        f"{place} cannot be used, and the last good state stays: it is forbidden.",
        f"{place} can be used again",
        f"{place} changed, and the new state is in force",
    ]


def test_what_is_mended_without_touching_the_files_is_taken_over(numbers: Numbers) -> None:
    watched = numbers.watched()
    numbers.forbidden.touch()
    numbers.write("2", "2")
    numbers.looks(watched, 50)
    assert (watched.value, watched.error) == (1, "it is forbidden.")
    numbers.forbidden.unlink()
    assert any(numbers.looks(watched, int(MOST_RETRY_S) + 1))
    assert (watched.value, watched.error) == (2, "")


def test_a_mount_that_is_away_for_a_while_leaves_the_value(numbers: Numbers) -> None:
    watched, folder = numbers.watched(), numbers.paths[0].parent
    folder.rename(away := folder.with_name("away"))
    numbers.looks(watched, 10)
    assert watched.error == "the numbers differ."
    away.rename(folder)
    assert any(numbers.looks(watched))
    assert (watched.value, watched.error) == (1, "")


def test_tokens_with_rights_that_are_too_wide_are_taken_once_these_are_mended(tmp_path: Path) -> None:
    path, now = tmp_path / "tokens.json", [0.0]
    add_token(path, "a")
    watched = WatchedFiles("tokens", (path,), lambda: TokenBook.load(path), clock=lambda: now[0])
    add_token(path, "b")
    path.chmod(0o666)
    assert not watched.refresh()
    assert "chmod 600" in watched.error
    assert len(watched.value.tokens) == 1
    # This changes neither the time nor the size of the file.
    path.chmod(0o600)
    now[0] += LOOK_S
    assert watched.refresh()
    assert len(watched.value.tokens) == 2


def test_a_file_that_is_half_written_is_taken_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    add_token(path, "a")
    watched = WatchedFiles("tokens", (path,), lambda: TokenBook.load(path))
    add_token(path, "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert (watched.refresh(), len(watched.value.tokens)) == (False, 1)
    path.write_bytes(whole)
    assert (watched.refresh(), len(watched.value.tokens)) == (True, 2)


def test_a_change_that_keeps_its_size_and_its_inode_is_seen(numbers: Numbers) -> None:
    watched = numbers.watched()
    for path in numbers.paths:
        path.write_text("7", "utf-8")
        os.utime(path, ns=(1, 1))
    assert any(numbers.looks(watched))
    assert watched.value == 7


def test_what_cannot_be_used_at_first_is_an_error_or_another_value(numbers: Numbers) -> None:
    numbers.write("x")
    with pytest.raises(ConfigError, match="differ"):
        numbers.watched()
    watched = numbers.watched(otherwise=lambda: 0)
    assert (watched.value, watched.failures) == (0, 1)
    numbers.write("4", "4")
    assert any(numbers.looks(watched))
    assert watched.value == 4


def test_a_change_in_one_step_is_read_at_the_first_look() -> None:
    attempts = Attempts("a", settles=False)
    assert [attempts.are_due(mark) for mark in ("a", "b")] == [False, True]


async def test_a_defect_does_not_end_the_watch_and_is_said_once(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, watched = numbers.watched(), numbers.watched()
    monkeypatch.setattr(broken, "_load", lambda: 1 / 0)
    numbers.write("4", "4")
    watching = [asyncio.create_task(keep_fresh(one, every_s=0.01)) for one in (broken, watched)]
    while watched.value != 4 or broken.failures < 3:
        numbers.now += LOOK_S
        await asyncio.sleep(0.01)
    for task in watching:
        task.cancel()
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert "ZeroDivisionError, which is a defect" in said[0].message
    assert broken.value == 1
