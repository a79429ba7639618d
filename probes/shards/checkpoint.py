"""Keep the results of finished shards, so that an interrupted run goes on where it was (`Checkpoint`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

from probes.atomic_write import write_file
from probes.errors import DataError


class Checkpoint(Protocol):
    """The interface of what keeps results."""

    @property
    def finished(self) -> frozenset[int]:
        """The numbers of the shards whose results are kept, whole."""

    def keep(self, number: int, result: bytes) -> None:
        """Keep the result of one shard. Raises DataError if there is one already."""

    def result(self, number: int) -> bytes:
        """Return the result of a finished shard."""


class MemoryCheckpoint:
    """Keeps results in memory, for work that is short enough to be done again."""

    def __init__(self) -> None:
        self._results: dict[int, bytes] = {}

    @property
    def finished(self) -> frozenset[int]:
        """The numbers of the shards whose results are kept."""
        return frozenset(self._results)

    def keep(self, number: int, result: bytes) -> None:
        """Keep the result of one shard; see `Checkpoint`."""
        _refuse_second(number, self.finished)
        self._results[number] = result

    def result(self, number: int) -> bytes:
        """Return the result of a finished shard."""
        return self._results[number]


class FolderCheckpoint:
    """Keeps each result as a file in a folder, beside a manifest that names the file's size and SHA-256.

    The manifest is written last, and both are written in one step. So a shard with a manifest is finished, and a result
    that a crash or a disk has changed is found out and computed again.

    Args:
        folder: where the files are; it must exist.
        n_shards: the number of shards.
        suffix: the ending of the results, as in `.parquet`.
    """

    def __init__(self, folder: Path, n_shards: int, suffix: str = ".bin") -> None:
        self._folder, self._suffix = folder, suffix
        self._finished = {number for number in range(n_shards) if self._is_whole(number)}

    @property
    def finished(self) -> frozenset[int]:
        """The numbers of the shards whose results are kept, whole."""
        return frozenset(self._finished)

    def path(self, number: int) -> Path:
        """Return the file that holds the result of a shard."""
        return self._folder / f"part-{number:06d}{self._suffix}"

    def keep(self, number: int, result: bytes) -> None:
        """Keep the result of one shard; see `Checkpoint`."""
        _refuse_second(number, self._finished)
        write_file(self.path(number), result)
        write_file(self._manifest(number), json.dumps(_described(result)).encode())
        self._finished.add(number)

    def result(self, number: int) -> bytes:
        """Return the result of a finished shard."""
        return self.path(number).read_bytes()

    def _manifest(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.json"

    def _is_whole(self, number: int) -> bool:
        try:
            said = json.loads(self._manifest(number).read_bytes())
            return bool(said == _described(self.result(number)))
        except (OSError, ValueError):
            return False


def _described(result: bytes) -> dict[str, object]:
    return {"bytes": len(result), "sha256": hashlib.sha256(result).hexdigest()}


def _refuse_second(number: int, finished: frozenset[int] | set[int]) -> None:
    if number in finished:
        raise DataError(f"shard {number} is finished, and an engine computed it a second time; report this as a bug.")
