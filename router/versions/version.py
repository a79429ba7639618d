"""Define a version of a policy: the bytes of its file and of its probe, under a name made of them (`PolicyVersion`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from probes.artifacts.signature import SIGNATURE
from probes.artifacts.store import JSON, README, STATISTICS, TENSORS
from probes.bounded.files import BoundedFileError, parse_json, read_bounded
from probes.bounded.text import os_fault
from router.errors import ConfigError
from router.policies.loading import ServedPolicy, load_policy, probe_folder

#: How many characters of a digest are shown to people. Any beginning of at least `LEAST_PREFIX` that fits one version
#: names it.
SHOWN, LEAST_PREFIX = 12, 6

#: The files of a probe that a version holds, if they are there.
PROBE_FILES = (JSON, TENSORS, README, STATISTICS, SIGNATURE)

_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class PolicyVersion:
    """Says what a version holds. Two versions with the same bytes are one.

    Attributes:
        id: the SHA-256 of everything below but the two digests, in hex.
        name: the name of the policy.
        file: the SHA-256 of the policy file.
        probe: the SHA-256 of each file of its probe, by the file's name; empty if it has none.
        policy_digest, probe_digest: the digests that decision records name; the second is empty without a probe.
    """

    id: str
    name: str
    file: str
    probe: Mapping[str, str]
    policy_digest: str
    probe_digest: str

    @property
    def probe_id(self) -> str:
        """Return the SHA-256 of the list of the probe's files; empty if there is no probe."""
        return _sha256_of(self.probe) if self.probe else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the version as plain values for JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "file": self.file,
            "probe": dict(self.probe),
            "policy_digest": self.policy_digest,
            "probe_digest": self.probe_digest,
        }


@dataclass(frozen=True)
class Contents:
    """Holds the bytes of a version: its policy file, and the files of its probe by their names."""

    policy: bytes
    probe: Mapping[str, bytes]


def version_of(contents: Contents, policy: ServedPolicy) -> PolicyVersion:
    """Return the version that these bytes are. `policy` was loaded from them."""
    file = sha256(contents.policy).hexdigest()
    probe = {name: sha256(data).hexdigest() for name, data in sorted(contents.probe.items())}
    return PolicyVersion(
        id=id_of(policy.ref.name, file, probe),
        name=policy.ref.name,
        file=file,
        probe=probe,
        policy_digest=policy.ref.digest,
        probe_digest=policy.probe_ref.digest if policy.probe_ref else "",
    )


def id_of(name: str, file: str, probe: Mapping[str, str]) -> str:
    """Return the id of a version that holds these files. The other arguments are those of `PolicyVersion`."""
    return _sha256_of({"name": name, "file": file, "probe": dict(probe)})


def version_from(manifest: bytes, version_id: str) -> PolicyVersion:
    """Return the version that a manifest of a store describes. Raises ValueError if it is not that of this version."""
    try:
        version = PolicyVersion(**parse_json(manifest))
        is_whole = version.id == version_id == id_of(version.name, version.file, version.probe)
    except TypeError as error:
        raise ValueError(f"it is no manifest of a version: {error}") from error
    # The names become paths of files.
    if not is_whole or not set(version.probe) <= set(PROBE_FILES):
        raise ValueError("it does not describe the version under whose id it is kept")
    return version


def read_contents(path: Path) -> tuple[Contents, ServedPolicy]:
    """Return the bytes of a policy file and of the probe that it names, and the policy that they make together.

    Raises ConfigError if they cannot be read or cannot be used, or change while they are read.
    """
    policy = load_policy(path)
    folder = probe_folder(policy.rules.file, path)
    files = [folder / name for name in PROBE_FILES if (folder / name).exists()] if folder else []
    contents = Contents(read_or_refuse(path), {file.name: read_or_refuse(file) for file in files})
    again = load_policy(path)
    if (again.ref, again.probe_ref) != (policy.ref, policy.probe_ref):
        raise ConfigError(f"policy file {path} or its probe changed while it was read; try again.")
    return contents, policy


def read_or_refuse(file: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """Return the bytes of a file of a version or of a store. Raises ConfigError if it is too long or unreadable."""
    try:
        return read_bounded(file, most_bytes)
    except (OSError, BoundedFileError) as error:
        raise ConfigError(f"{file} must be readable: {os_fault(error)}.") from error


def _sha256_of(value: Mapping[str, Any]) -> str:
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
