"""Save and load a `DifficultyProbe` as a directory of JSON and safetensors; nothing in it is executable.

probe.json holds names, provenance and the SHA-256 of probe.safetensors; README.md is a model card for
people and is not read back. statistics.safetensors, if asked for, is the fit's `Prior`: serving never reads
it, and its SHA-256 is in probe.json too. `sign` adds probe.sig, an Ed25519 signature of probe.json and so, by the
digest, of the whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from probes._checks import Array
from probes.artifacts.card import model_card
from probes.artifacts.card_binding import check_card, document_digest
from probes.artifacts.document import ProbeDocument, TensorsEntry
from probes.artifacts.part_tensors import take_kinds, take_tasks
from probes.artifacts.signature import SIGNATURE, check_signature, make_signature
from probes.atomic_write import replace_directory
from probes.bounded.files import BoundedFileError, BoundedJsonError, parse_json, read_bounded, shown
from probes.bounded.text import not_there, os_fault
from probes.calibration.base import Calibrator
from probes.calibration.choice import KINDS, from_state, state_names
from probes.errors import (
    ArtifactDigestError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactSchemaError,
    ArtifactTruncatedError,
    ArtifactValueError,
    DataError,
    StatisticsNotFoundError,
)
from probes.probe import FITTED_ON, DataSource, DifficultyProbe, ProbeCard
from probes.regression.linear import Leverage, LinearProbe
from probes.regression.prior import Prior

SCHEMA = 1
"""The schema number written, and the only one read."""

JSON, TENSORS, README, STATISTICS = "probe.json", "probe.safetensors", "README.md", "statistics.safetensors"

#: Most bytes of probe.json, and of each file of arrays.
_MOST_JSON_BYTES, _MOST_TENSOR_BYTES = 64 << 20, 16 << 30

_FLOAT32 = ("linear.coef", "linear.intercept", "leverage.mean", "leverage.inverse_scale", "leverage.factor")
_FLOAT64 = ("linear.alpha", "leverage.scalars")


def save(probe: DifficultyProbe, path: str | Path, prior: Prior | None = None) -> None:
    """Write the probe as a directory at `path`, all of it or nothing; an artifact already there is replaced.

    prior: the statistics of the probe's fit, if `load_prior` shall find them later; 4 d (d + 1) bytes each.

    Raises ArtifactError if `path` holds something other than an artifact, of which nothing is touched, and DataError
    if the card or the encoder spec is not plain JSON.
    """
    tensors = _packed(probe.tensors())
    document: dict[str, object] = {
        "schema_number": SCHEMA,
        "identity": probe.identity,
        "encoder": None if probe.encoder is None else dict(probe.encoder),
        "encoder_identity": probe.encoder_identity,
        "models": list(probe.models),
        "calibration": [calibrator.kind for calibrator in probe.calibrators],
        "leverage_limit": probe.leverage_limit,
        "card": asdict(probe.card),
        "tensors": _described(tensors),
    }
    if probe.tasks is not None:
        document["tasks"] = {"keys": list(probe.tasks.keys)}
    if probe.kinds is not None:
        document["kinds"] = {"names": list(probe.kinds.names), "assumed": list(probe.kinds.assumed)}
    contents = {TENSORS: tensors}
    if prior is not None:
        if (prior.n_features, prior.n_targets) != (probe.n_features, len(probe.models)):
            raise DataError(
                f"statistics must have as many features and targets as their probe, {probe.n_features} and "
                f"{len(probe.models)}; got {prior.n_features} and {prior.n_targets}."
            )
        contents[STATISTICS] = _packed(prior.tensors())
        document["statistics"] = _described(contents[STATISTICS])
    readme = model_card(probe).encode()
    document["readme_sha256"] = sha256(readme).hexdigest()
    try:
        document["digest"] = document_digest(document)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"card and encoder must be plain, finite JSON: {error}. Convert numpy values first.") from error
    contents |= {JSON: text.encode(), README: readme}
    replace_directory(Path(path), contents, may_hold={*contents, SIGNATURE, STATISTICS})


def load(path: str | Path, public_key: bytes | None = None) -> DifficultyProbe:
    """Read the artifact at `path`; with `public_key` (32 bytes) only if it is signed by that Ed25519 key.

    Raises ArtifactNotFoundError, ArtifactTruncatedError (ends early, no JSON, no safetensors),
    ArtifactDigestError, ArtifactSchemaError (unknown schema number, field or calibration, missing or
    surplus arrays), ArtifactValueError (NaN, contradicting shapes) or ArtifactSignatureError.
    """
    root = Path(path)
    raw = _read(root / JSON)
    if public_key is not None:
        check_signature(root, raw, public_key)
    document = _parse(root / JSON, raw)
    tensors = _tensors(root / TENSORS, document.tensors)
    try:
        probe = _assemble(document, tensors)
    except DataError as error:
        raise ArtifactValueError(f"{root} must hold a consistent probe: {shown(str(error), 600)}") from error
    if probe.identity != document.identity:
        raise ArtifactDigestError(
            f"{root / JSON} must describe the probe it names, {shown(document.identity, 64)}; its contents make "
            f"{probe.identity}. The file was edited: fetch or fit the probe again."
        )
    check_card(root / JSON, raw, root / README)
    return probe


def load_prior(path: str | Path) -> Prior:
    """Read the statistics of the fit of the probe at `path`.

    Raises StatisticsNotFoundError if none were kept, and what `load` raises for a file that is damaged.
    """
    root = Path(path)
    document = _parse(root / JSON, _read(root / JSON))
    if document.statistics is None:
        raise StatisticsNotFoundError(
            f"{root} must hold the statistics of its fit to adapt it; it holds none. "
            "Fit that probe again with --keep-statistics."
        )
    try:
        prior = Prior.from_tensors(_tensors(root / STATISTICS, document.statistics))
    except DataError as error:
        raise ArtifactValueError(f"{root / STATISTICS} must hold the statistics of a fit: {error}") from error
    if prior.n_targets != len(document.models):
        raise ArtifactValueError(
            f"{root / STATISTICS} must be of the probe's {len(document.models)} models; got {prior.n_targets}."
        )
    return prior


def sign(path: str | Path, private_key: bytes) -> None:
    """Sign the artifact at `path` with an Ed25519 private key (32 bytes), after checking that it loads."""
    load(path)
    root = Path(path)
    make_signature(root, _read(root / JSON), private_key)


def verify(path: str | Path, public_key: bytes) -> None:
    """Raise ArtifactSignatureError, or what `load` raises, unless `path` is intact and signed by this key."""
    load(path, public_key)


def _packed(tensors: Mapping[str, Array]) -> bytes:
    from safetensors.numpy import save as to_safetensors

    packed: bytes = to_safetensors({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    return packed


def _described(contents: bytes) -> dict[str, object]:
    return {"sha256": sha256(contents).hexdigest(), "n_bytes": len(contents)}


def _read(file: Path, most_bytes: int = _MOST_JSON_BYTES) -> bytes:
    try:
        return read_bounded(file, most_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactNotFoundError(
            f"a probe must be a folder that `elle fit` or `elle fit-pairs` wrote; {file} {not_there(file)}."
        ) from error
    except (OSError, BoundedFileError) as error:
        raise ArtifactError(f"{file} must be readable: {os_fault(error)}.") from error


def _parse(file: Path, raw: bytes) -> ProbeDocument:
    try:
        document = parse_json(raw)
    except BoundedJsonError as error:
        raise ArtifactTruncatedError(
            f"{file} of {len(raw)} bytes cannot be read: {error}. Fetch or fit the probe again."
        ) from error
    except BoundedFileError as error:
        raise ArtifactValueError(f"{file} cannot be read: {error}. Fetch or fit the probe again.") from error
    number = document.get("schema_number") if isinstance(document, dict) else None
    if number != SCHEMA or isinstance(number, bool):
        raise ArtifactSchemaError(
            f"{file} must have schema_number {SCHEMA}; got {shown(repr(number))}. Use the version of probes that "
            f"wrote it."
        )
    try:
        return ProbeDocument.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactSchemaError(
            f"{file}: field {shown(place)} must be right; {first['msg']}. Fit it again."
        ) from error


def _tensors(file: Path, expected: TensorsEntry) -> Mapping[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_safetensors

    if not 0 < expected.n_bytes <= _MOST_TENSOR_BYTES:
        raise ArtifactSchemaError(
            f"{file} must be described with 1 to {_MOST_TENSOR_BYTES:,} bytes; got {expected.n_bytes}."
        )
    raw = _read(file, expected.n_bytes)
    if len(raw) < expected.n_bytes:
        raise ArtifactTruncatedError(
            f"{file} must have {expected.n_bytes} bytes; got {len(raw)}. The copy ended early: fetch it again."
        )
    if (digest := sha256(raw).hexdigest()) != expected.sha256:
        raise ArtifactDigestError(
            f"{file} must have SHA-256 {shown(expected.sha256)}; got {digest}. {JSON} was written with another."
        )
    try:
        tensors: dict[str, Array] = from_safetensors(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactTruncatedError(f"{file} must be a safetensors file: {error}. Fit the probe again.") from error
    return tensors


def _assemble(document: ProbeDocument, tensors: Mapping[str, Array]) -> DifficultyProbe:
    tasks, tensors = take_tasks(document.tasks.keys if document.tasks else None, tensors)
    kinds, tensors = take_kinds(document.kinds, tensors)
    fixed, maps = _sorted_out(tensors, len(document.calibration))
    scalars = fixed["leverage.scalars"]
    if scalars.shape != (3,):
        raise DataError(f"leverage.scalars must have shape (3,); got {scalars.shape}.")
    card = document.card
    return DifficultyProbe(
        encoder=document.encoder,
        encoder_identity=document.encoder_identity,
        models=tuple(document.models),
        linear=LinearProbe(fixed["linear.coef"], fixed["linear.intercept"], fixed["linear.alpha"]),
        leverage=Leverage(
            fixed["leverage.mean"],
            fixed["leverage.inverse_scale"],
            fixed["leverage.factor"],
            *scalars.tolist(),
        ),
        leverage_limit=document.leverage_limit,
        fitted_on=fixed.get(FITTED_ON, np.empty(0, dtype=np.uint64)),
        calibrators=tuple(map(_calibrator, document.calibration, maps)),
        tasks=tasks,
        kinds=kinds,
        card=ProbeCard(
            **card.model_dump(exclude={"data"}), data=tuple(DataSource(**s.model_dump()) for s in card.data)
        ),
    )


def _calibrator(kind: str, state: Mapping[str, Array]) -> Calibrator:
    if kind not in KINDS:
        raise ArtifactSchemaError(
            f"every calibration must be one of {', '.join(KINDS)}; got {shown(repr(kind))}. Use the version that "
            f"wrote it."
        )
    if state.keys() != state_names(kind):
        raise ArtifactSchemaError(
            f"a {kind} calibration must have the tensors {sorted(state_names(kind))}; "
            f"got {shown(str(sorted(state)), 300)}."
        )
    return from_state(kind, state)


def _sorted_out(tensors: Mapping[str, Array], n_maps: int) -> tuple[dict[str, Array], list[dict[str, Array]]]:
    """Return the arrays with fixed names, and the arrays of each calibration map.

    None may be missing or superfluous.
    """
    fixed: dict[str, Array] = {}
    maps: list[dict[str, Any]] = [{} for _ in range(n_maps)]
    for name, array in tensors.items():
        dtype = np.uint64 if name == FITTED_ON else np.float32 if name in _FLOAT32 else np.float64
        if array.dtype != dtype:
            raise ArtifactSchemaError(f"tensor {shown(name)} must be {np.dtype(dtype)}; got {array.dtype}.")
        head, _, rest = name.partition(".")
        index, _, item = rest.partition(".")
        if name in _FLOAT32 or name in _FLOAT64 or name == FITTED_ON:
            fixed[name] = array
        elif head == "calibration" and index.isdecimal() and int(index) < n_maps:
            maps[int(index)][item] = array
        else:
            raise ArtifactSchemaError(f"{TENSORS} must not hold the unknown tensor {shown(repr(name))}.")
    if missing := sorted({*_FLOAT32, *_FLOAT64} - fixed.keys()):
        raise ArtifactSchemaError(f"{TENSORS} must hold {', '.join(missing)}. Fit the probe again.")
    return fixed, maps
