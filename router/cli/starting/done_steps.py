"""Remember which steps are done, by digests of what they read and wrote, so that a second run skips them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.atomic_write import write_file
from router.collecting.calls.store import digest

#: The name of the file, in the folder of `elle start`, that says what is done.
STATE = "start.json"


@dataclass(frozen=True)
class StepReport:
    """What a step says of itself in a few sentences, and whether it did all that it was to do."""

    text: str
    finished: bool = True


@dataclass(frozen=True)
class FileStep:
    """One step: what it reads, what it writes, and what it does.

    Attributes:
        name: one word.
        reads: everything that the result depends on: settings, and files or folders as `Path`.
        writes: the files and folders that it makes.
        work: does it, and says what it did and what it cost.
    """

    name: str
    reads: Mapping[str, Any]
    writes: Sequence[Path]
    work: Callable[[], StepReport]


@dataclass(frozen=True)
class StepDone:
    """Says what a step did, and whether it was skipped because it was done before."""

    name: str
    said: str
    skipped: bool


class DoneSteps:
    """Does steps that are not done yet. A step is done if it read the same and what it wrote is still the same."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE
        self._known = _read(self._path)

    def do(self, step: FileStep) -> StepDone:
        """Do a step, or skip it if it is done. What it raises passes, and the step then counts as not done."""
        reads = digest({name: _fingerprint(value) for name, value in step.reads.items()})
        known = self._known.get(step.name, {})
        if known.get("reads") == reads and known.get("writes") == _written(step.writes):
            return StepDone(step.name, str(known.get("said")), skipped=True)
        said = step.work()
        if said.finished:
            self._known[step.name] = {"reads": reads, "writes": _written(step.writes), "said": said.text}
            write_file(self._path, json.dumps(self._known, indent=2).encode())
        return StepDone(step.name, said.text, skipped=False)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what is done; nothing if the file is missing or was changed into something else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        return {}
    return found


def _written(paths: Sequence[Path]) -> list[str | None]:
    return [_fingerprint(path) if path.exists() else None for path in paths]


def _fingerprint(value: Any) -> Any:
    """Return the SHA-256 of a file, or of all files of a folder, and other values as they are.

    What is no file has None: the step that reads it says what is wrong.
    """
    if not isinstance(value, Path):
        return [_fingerprint(one) for one in value] if isinstance(value, list | tuple) else value
    if value.is_dir():
        files = sorted(path for path in value.rglob("*") if path.is_file())
        return digest([[str(path.relative_to(value)), _fingerprint(path)] for path in files])
    if not value.is_file():
        return None
    with value.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
