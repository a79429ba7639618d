"""Take the kinds of request out of the tensors of a saved probe."""

from __future__ import annotations

from collections.abc import Mapping

from probes._checks import Array
from probes.artifacts.document import KindsEntry
from probes.errors import ArtifactSchemaError, DataError
from probes.kinds.known_kinds import KnownKinds
from probes.probe import KINDS

_DTYPES = {"means": "float32", "projection": "float32", "scalars": "float64"}


def take_kinds(entry: KindsEntry | None, tensors: Mapping[str, Array]) -> tuple[KnownKinds | None, Mapping[str, Array]]:
    """Return the kinds of this entry of probe.json, and the other tensors; without an entry, None and all tensors.

    Raises ArtifactSchemaError for a missing or mistyped tensor, and DataError for contradicting ones.
    """
    if entry is None:
        return None, tensors
    own = {}
    for name, dtype in _DTYPES.items():
        array = tensors.get(f"{KINDS}.{name}")
        if array is None or array.dtype != dtype:
            raise ArtifactSchemaError(
                f"a probe with kinds must hold the tensor {KINDS}.{name} as {dtype}. Fit the probe again."
            )
        own[name] = array
    if own["scalars"].shape != (2,):
        raise DataError(f"{KINDS}.scalars must have shape (2,); got {own['scalars'].shape}.")
    others = {name: array for name, array in tensors.items() if not name.startswith(f"{KINDS}.")}
    temperature, limit = own["scalars"].tolist()
    names, assumed = tuple(entry.names), tuple(entry.assumed)
    return KnownKinds(names, assumed, own["means"], own["projection"], temperature, limit), others
