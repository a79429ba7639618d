"""A checkpoint keeps whole results only, and each of them once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from probes.errors import DataError
from probes.shards.checkpoint import Checkpoint, FolderCheckpoint, MemoryCheckpoint
from probes.shards.work import PlainLoop, run_shards
from tests.probes.shards.squares import Squares


@pytest.fixture(params=["memory", "folder"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return MemoryCheckpoint() if request.param == "memory" else FolderCheckpoint(tmp_path, 5)


def test_what_is_kept_is_read_back_and_kept_once(checkpoint: Checkpoint) -> None:
    checkpoint.keep(3, b"three")
    assert (checkpoint.finished, checkpoint.result(3)) == ({3}, b"three")
    with pytest.raises(DataError, match="a second time"):
        checkpoint.keep(3, b"three")


def test_only_missing_shards_are_computed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.keep(2, b"four")
    done: list[int] = []
    run_shards(Squares(tmp_path, 5), checkpoint, PlainLoop(), done.append)
    assert done == [0, 1, 3, 4]
    assert [checkpoint.result(number) for number in range(5)] == [b"0", b"1", b"four", b"9", b"16"]


def test_nothing_is_opened_if_nothing_is_missing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for number in range(5):
        checkpoint.keep(number, b"known")
    run_shards(Squares(tmp_path, 5), checkpoint, PlainLoop(), lambda number: None)
    assert not list(tmp_path.glob("opened-*"))


def torn(result: Path, manifest: Path) -> None:
    result.write_bytes(result.read_bytes()[:-1])


def changed(result: Path, manifest: Path) -> None:
    result.write_bytes(b"other")


def gone(result: Path, manifest: Path) -> None:
    result.unlink()


def without_manifest(result: Path, manifest: Path) -> None:
    manifest.unlink()


def with_half_a_manifest(result: Path, manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:10])


@pytest.mark.parametrize("spoil", [torn, changed, gone, without_manifest, with_half_a_manifest])
def test_a_result_that_is_not_whole_counts_as_missing(spoil: Callable[[Path, Path], None], tmp_path: Path) -> None:
    first = FolderCheckpoint(tmp_path, 3)
    first.keep(0, b"equal")
    first.keep(1, b"equal")
    spoil(first.path(1), first.path(1).with_suffix(".json"))
    assert FolderCheckpoint(tmp_path, 3).finished == {0}
