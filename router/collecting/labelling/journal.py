"""Keep what a person said in a file that grows by a line with every key, so that nothing is lost (`Journal`)."""

from __future__ import annotations

import fcntl
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from probes.bounded.text import os_fault
from probes.errors import DataError

_VERSION = 1
_MOST_BYTES = 256 * 1024 * 1024


class Journal:
    """The verdicts of people on one file of outcomes, in a file of JSON lines. It holds no text of prompts or answers.

    The first line holds the seed of the random order. Each further line is one key: a score, a skip, or an undo. It
    is on disk before `record` returns. A last line that was cut off by a crash is dropped.

    Args:
        path: the file; it is made if it does not exist, and written to by `begin` or `record`. It stays locked until
            `close`, or the end of the `with` block.

    Attributes:
        seed: the seed of the order of questions.

    Raises DataError if the file is another program's, is damaged, or is open in another `elle label`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        except OSError as error:
            raise DataError(f"the labels {path} cannot be kept: {os_fault(error)}.") from error
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{self._path} is open in another `elle label`; end that one first.") from error
        text = self._file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise DataError(f"{self._path} must have at most {_MOST_BYTES:,} bytes.")
        whole = text[: text.rfind(b"\n") + 1]
        if text and not whole and not text.startswith(b'{"elle_labels"'):
            raise DataError(f"{self._path} is no file of labels; name another one with --labels.")
        lines = [self._line(number, line) for number, line in enumerate(whole.splitlines(), start=1)]
        self._file.seek(len(whole))
        self._file.truncate()
        self._steps: list[tuple[str, float | None]] = []
        self._is_new = False
        if lines:
            self.seed = self._seed_of(lines[0])
            for number, line in enumerate(lines[1:], start=2):
                self._apply(number, line)
        else:
            self.seed = secrets.token_hex(8)
            self._is_new = True

    def _line(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{self._path}, line {number} is no label; name another file with --labels.")
        return found

    def _seed_of(self, head: Mapping[str, Any]) -> str:
        if head.get("elle_labels") != _VERSION or not isinstance(head.get("seed"), str):
            raise DataError(f"{self._path} is no file of labels of this version; name another one with --labels.")
        return str(head["seed"])

    def _apply(self, number: int, line: Mapping[str, Any]) -> None:
        if line.get("undo") is True and self._steps:
            self._steps.pop()
            return
        question, score = line.get("question"), line.get("score")
        known = isinstance(score, float | int) and not isinstance(score, bool) and math.isfinite(score)
        if not isinstance(question, str) or (score is not None and not (known and 0 <= score <= 1)):
            raise DataError(f"{self._path}, line {number} is no label; name another file with --labels.")
        self._steps.append((question, score))

    @property
    def said(self) -> dict[str, float | None]:
        """Return the last score of each question that was answered, and None for one that was skipped."""
        return dict(self._steps)

    @property
    def scores(self) -> dict[str, float]:
        """Return the score of each question that was answered and not skipped."""
        return {question: score for question, score in self.said.items() if score is not None}

    def record(self, question: str, score: float | None) -> None:
        """Keep what a person said of a question; None is a skip."""
        self._write({"question": question, "score": score})
        self._steps.append((question, score))

    def undo(self) -> str | None:
        """Take back the last thing that was said, and return its question, or None if there is nothing."""
        if not self._steps:
            return None
        self._write({"undo": True})
        return self._steps.pop()[0]

    def begin(self) -> None:
        """Write the first line if the file is new: from now on the order of questions is settled."""
        if self._is_new:
            self._is_new = False
            self._write({"elle_labels": _VERSION, "seed": self.seed})

    def _write(self, value: Mapping[str, object]) -> None:
        self.begin()
        try:
            self._file.write((json.dumps(value) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(f"the label cannot be kept in {self._path}: {os_fault(error)}.") from error

    def close(self) -> None:
        """Close the file, so that another program may open it. A new one in which nothing was written is removed."""
        if self._is_new:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
