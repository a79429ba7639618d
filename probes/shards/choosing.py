"""Choose the engine that a user asks for (`chosen_engine`)."""

from __future__ import annotations

from probes.shards.processes import LocalProcesses
from probes.shards.work import Engine

#: The names of the engines.
ENGINES = ("local", "ray")


def chosen_engine(name: str, processes: int | None) -> Engine | None:
    """Return the engine with this name and so many processes; None for this process alone.

    Without a number of processes `local` is this process, and `ray` takes every processor of the cluster. Raises
    DataError for `ray` if it is not installed.
    """
    if name == "ray":
        from probes.shards.ray_data import RayData

        return RayData(processes)
    return None if processes in (None, 1) else LocalProcesses(processes or 1)
