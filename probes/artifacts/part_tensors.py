"""Take the optional parts of a saved probe, its tasks and its kinds, out of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes._checks import Array
from probes.artifacts.document import KindsEntry
from probes.errors import ArtifactSchemaError, DataError
from probes.kinds.known_kinds import KnownKinds
from probes.probe import KINDS, TASKS
from probes.tasks.offsets import TaskOffsets

_OF_TASKS = {"covariance": "float64", "variance": "float64", "counts": "int64", "sums": "int64"}
_OF_KINDS = {"means": "float32", "projection": "float32", "scalars": "float64"}


def take_tasks(
    keys: Sequence[str] | None, tensors: Mapping[str, Array]
) -> tuple[TaskOffsets | None, Mapping[str, Array]]:
    """Return the offsets of the tasks with these keys, and the other tensors; without keys, None and all tensors.

    Raises ArtifactSchemaError for a missing or mistyped tensor, and DataError for contradicting ones.
    """
    if keys is None:
        return None, tensors
    own, others = _split(TASKS, _OF_TASKS, tensors)
    return TaskOffsets(tuple(keys), **own), others


def take_kinds(entry: KindsEntry | None, tensors: Mapping[str, Array]) -> tuple[KnownKinds | None, Mapping[str, Array]]:
    """Return the kinds of this entry of probe.json, and the other tensors; without an entry, None and all tensors.

    Raises ArtifactSchemaError for a missing or mistyped tensor, and DataError for contradicting ones.
    """
    if entry is None:
        return None, tensors
    own, others = _split(KINDS, _OF_KINDS, tensors)
    if own["scalars"].shape != (2,):
        raise DataError(f"{KINDS}.scalars must have shape (2,); got {own['scalars'].shape}.")
    temperature, limit = own["scalars"].tolist()
    names, assumed = tuple(entry.names), tuple(entry.assumed)
    return KnownKinds(names, assumed, own["means"], own["projection"], temperature, limit), others


def _split(
    part: str, dtypes: Mapping[str, str], tensors: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the tensors of a part by their names within it, and all tensors that are not of this part."""
    own = {}
    for name, dtype in dtypes.items():
        array = tensors.get(f"{part}.{name}")
        if array is None or array.dtype != dtype:
            raise ArtifactSchemaError(
                f"a probe with {part} must hold the tensor {part}.{name} as {dtype}. Fit the probe again."
            )
        own[name] = array
    return own, {name: array for name, array in tensors.items() if not name.startswith(f"{part}.")}
