"""Choose the engine that a user asks for (`chosen_engine`)."""

from __future__ import annotations

from probes.shards.processes import LocalProcesses
from probes.shards.work import Engine


def chosen_engine(processes: int) -> Engine | None:
    """Return the engine for so many processes of this machine; None for one, which is this process."""
    return None if processes == 1 else LocalProcesses(processes)
