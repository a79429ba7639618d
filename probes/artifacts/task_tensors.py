"""Take the offsets of tasks out of the tensors of a saved probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes._checks import Array
from probes.errors import ArtifactSchemaError
from probes.probe import TASKS
from probes.tasks.offsets import TaskOffsets

_DTYPES = {"covariance": "float64", "variance": "float64", "counts": "int64", "sums": "int64"}


def take_tasks(
    keys: Sequence[str] | None, tensors: Mapping[str, Array]
) -> tuple[TaskOffsets | None, Mapping[str, Array]]:
    """Return the offsets of the tasks with these keys, and the other tensors; without keys, None and all tensors.

    Raises ArtifactSchemaError for a missing or mistyped tensor, and DataError for contradicting ones.
    """
    if keys is None:
        return None, tensors
    own = {}
    for name, dtype in _DTYPES.items():
        array = tensors.get(f"{TASKS}.{name}")
        if array is None or array.dtype != dtype:
            raise ArtifactSchemaError(
                f"a probe with tasks must hold the tensor {TASKS}.{name} as {dtype}. Fit the probe again."
            )
        own[name] = array
    others = {name: array for name, array in tensors.items() if not name.startswith(f"{TASKS}.")}
    return TaskOffsets(tuple(keys), **own), others
