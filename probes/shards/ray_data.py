"""Compute shards on a Ray cluster, by Ray Data with a pool of actors that hold what the shards need (`RayData`)."""

from __future__ import annotations

import atexit
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from probes import errors
from probes.shards.ray_cluster import import_ray, ray_cluster
from probes.shards.work import ShardWork

#: Shards that wait in each actor, so that it has the next one when it has finished one.
_IN_FLIGHT = 2


class RayData:
    """The engine that computes shards on a Ray cluster.

    The data set that Ray sees is the numbers of the shards. An actor reads the rows of its shard itself, so embeddings
    and prompts of files do not pass through the memory of the cluster, and a shard is the same rows whoever computes
    it. If an actor or its machine dies, Ray starts another one, which computes the shard again; only this process keeps
    results.

    Args:
        workers: the number of actors, each with one processor; None takes all processors of the cluster.

    Raises DataError if Ray is not installed.
    """

    def __init__(self, workers: int | None) -> None:
        import_ray()
        self._workers = workers
        self._cluster: contextlib.ExitStack | None = None

    def results(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Compute the shards; see `Engine`."""
        if not shards:
            return
        yield from self._computed(self._connected(), work, shards)

    def _connected(self) -> Any:
        """Return the module `ray`, connected until this process ends: to start Ray takes longer than many a pass."""
        if self._cluster is None:
            cluster = contextlib.ExitStack()
            cluster.enter_context(ray_cluster(self._workers))
            atexit.register(cluster.close)
            self._cluster = cluster
        return import_ray()

    def _computed(self, ray: Any, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        from ray import data

        # The command has a progress bar of its own, and Ray Data tells its plan and its files.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        workers = min(self._workers or int(ray.cluster_resources().get("CPU", 1)), len(shards))
        numbers = data.from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
        # The reference keeps the work in the cluster for actors that are started later.
        reference = ray.put(work)
        computed = numbers.map_batches(
            _Actor,
            fn_constructor_args=([reference],),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=_IN_FLIGHT),
            num_cpus=1,
        )
        for row in computed.iter_rows():
            if row["kind"]:
                raise getattr(errors, row["kind"])(row["message"])
            yield int(row["shard"]), row["result"]


class _Actor:
    """Opens the work once, and computes the shards that it is given."""

    def __init__(self, reference: list[Any]) -> None:
        import ray

        self._work: ShardWork = ray.get(reference[0])
        self._compute: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number = int(batch["shard"][0])
        result, kind, message = b"", "", ""
        try:
            self._compute = self._compute or self._work.open(1)
            result = self._compute(number)
        except errors.ProbesError as error:
            # As a value, because Ray would wrap it in an error of its own, and try again.
            kind, message = type(error).__name__, str(error)
        return {"shard": [number], "result": [result], "kind": [kind], "message": [message]}
