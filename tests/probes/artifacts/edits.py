"""Edits of a saved probe, as an accident or a forger would make them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from probes.probe import DifficultyProbe

MakeProbe = Callable[..., DifficultyProbe]


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "probe.json").read_text())
    change(document)
    (path / "probe.json").write_text(json.dumps(document))


def edit_tensors(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors and make size and digest right again, as a careful forger would."""
    tensors = {
        name: array.copy() for name, array in from_safetensors((path / "probe.safetensors").read_bytes()).items()
    }
    change(tensors)
    raw = to_safetensors(tensors)
    (path / "probe.safetensors").write_bytes(raw)
    edit_json(path, lambda d: d["tensors"].update(sha256=hashlib.sha256(raw).hexdigest(), n_bytes=len(raw)))


def pop(*keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document.pop(keys[-1])

    return change


def put(value: object, *keys: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change
