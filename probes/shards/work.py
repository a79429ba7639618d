"""Define work that is cut into shards (`ShardWork`) and what computes it (`Engine`), and run the one on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from probes.shards.checkpoint import Checkpoint

#: Computes one shard, given its number, and returns its result.
ShardFunction = Callable[[int], bytes]


class ShardWork(Protocol):
    """The interface of work that is cut into shards.

    It is sent to every worker, so it holds plain values: paths, options, arrays. A result depends on the number of its
    shard alone, and never on the worker or on what the worker did before; so every engine gets the same results.
    """

    @property
    def n_shards(self) -> int:
        """The number of shards; they are numbered from 0."""

    def open(self, threads: int | None) -> ShardFunction:
        """Load what shards need, such as an encoder, once in each worker, and return what computes a shard.

        threads: how many threads the worker may keep busy; None stands for as many as there are cores.
        """


class Engine(Protocol):
    """The interface of what computes shards: a loop, local processes, or a cluster."""

    def results(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Compute these shards, and yield the number and the result of each exactly once, in any order.

        An error of the work is raised here.
        """


class PlainLoop:
    """The engine that computes one shard after the other in this process."""

    def results(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Compute the shards in their order; see `Engine`."""
        if shards:
            compute = work.open(None)
            for number in shards:
                yield number, compute(number)


def run_shards(work: ShardWork, checkpoint: Checkpoint, engine: Engine, on_done: Callable[[int], None]) -> None:
    """Compute every shard that the checkpoint does not hold, and keep each result as soon as it is there.

    `on_done` is called with the number of each shard that is computed. Only this process writes, so a shard whose
    worker dies is either kept whole or computed again.
    """
    missing = [number for number in range(work.n_shards) if number not in checkpoint.finished]
    for number, result in engine.results(work, missing):
        checkpoint.keep(number, result)
        on_done(number)
