"""Define what probe.json may hold, field by field (`ProbeDocument`), as it is checked when it is read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Source(_Strict):
    name: str
    sha256: str
    n_rows: int


class _Card(_Strict):
    title: str
    created: str
    summary: str
    data: list[_Source]
    n_samples: dict[str, int]
    metrics: dict[str, JsonValue]
    versions: dict[str, str]


class TensorsEntry(_Strict):
    """Describes a file of arrays by its digest and its size."""

    sha256: str
    n_bytes: int


class _Tasks(_Strict):
    keys: list[str]


class KindsEntry(_Strict):
    """Names the kinds of a probe, and says of each whether its rows are assumptions."""

    names: list[str]
    assumed: list[bool]


class ProbeDocument(_Strict):
    """The contents of probe.json, field by field, as they are checked."""

    schema_number: Literal[1]
    identity: str
    encoder: dict[str, JsonValue] | None
    encoder_identity: str
    models: list[str]
    calibration: list[str]
    leverage_limit: float | None
    card: _Card
    tensors: TensorsEntry
    statistics: TensorsEntry | None = None
    tasks: _Tasks | None = None
    kinds: KindsEntry | None = None
    readme_sha256: str | None = None
    digest: str | None = None
