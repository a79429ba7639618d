"""Full passes of the garbage collector come by the clock, and not while a large request is decoded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator

from router.serving.garbage import rare_full_passes


@contextlib.contextmanager
def counted_full_passes() -> Iterator[list[int]]:
    passes: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            passes.append(1)

    gc.callbacks.append(note)
    try:
        yield passes
    finally:
        gc.callbacks.remove(note)


def grow() -> list[list[int]]:
    """As many objects that stay as a large request makes, several times over."""
    return [[number] for number in range(300_000)]


async def test_nothing_that_grows_sets_off_a_full_pass() -> None:
    gc.collect()
    gc.freeze()
    # A service of another test may run in this process.
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        with counted_full_passes() as passes:
            kept = grow()
        assert passes, "without the context there are full passes, or this test shows nothing"
        del kept
        gc.collect()
        async with rare_full_passes():
            with counted_full_passes() as passes:
                kept = grow()
        assert not passes
        del kept
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def test_a_full_pass_comes_in_its_time_and_the_thresholds_are_restored() -> None:
    before = gc.get_threshold()
    with counted_full_passes() as passes:
        async with rare_full_passes(every_s=0.01):
            kept = grow()
            async with asyncio.timeout(20):
                while not passes:  # noqa: ASYNC110  (the collector tells nobody)
                    await asyncio.sleep(0.01)
            del kept
    assert gc.get_threshold() == before
