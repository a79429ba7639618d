"""Show versions of policies to people and scripts, without the passwords that a policy file may hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from probes.bounded.secrets import mask_secrets
from router.policies.credentials import shown_base
from router.policies.policy_file import read_policy_file
from router.versions.store import VersionStore, versions_by_id
from router.versions.trail import Change
from router.versions.version import SHOWN, PolicyVersion


def masked_text(store: VersionStore, version: PolicyVersion) -> str:
    """Return the policy file of a version as text, with passwords in URLs replaced by `***`."""
    path = store.open(version.id).policy
    text = path.read_text("utf-8")
    for candidate in read_policy_file(path).candidates:
        if candidate.api_base:
            text = text.replace(candidate.api_base, shown_base(candidate.api_base) or "")
    return mask_secrets(text)


def rows_of(store: VersionStore) -> Iterator[dict[str, Any]]:
    """Yield each version as plain values, with whether it is active; by name, and those activated last come last."""
    trail = store.trail()
    active, last = set(trail.active.values()), {change.after: change.number for change in trail.changes}
    versions = versions_by_id(store, trail.active).values()
    for version in sorted(versions, key=lambda one: (one.name, last.get(one.id, 0))):
        yield version.to_dict() | {"active": version.id in active}


def difference(store: VersionStore, before: PolicyVersion, after: PolicyVersion) -> dict[str, Any]:
    """Return what differs between two versions: the lines of their policy files, and the files of their probes."""
    names = before.id[:SHOWN], after.id[:SHOWN]
    old, new = (masked_text(store, one).splitlines() for one in (before, after))
    return {
        "before": before.id,
        "after": after.id,
        "lines": list(difflib.unified_diff(old, new, *names, lineterm="")),
        "probe": _changed_files(before.probe, after.probe),
    }


def _changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    names = sorted({*before, *after})
    words = {(True, True): "changed", (True, False): "gone", (False, True): "new"}
    return {name: words[name in before, name in after] for name in names if before.get(name) != after.get(name)}


def change_to_dict(change: Change) -> dict[str, Any]:
    """Return a change as plain values."""
    return asdict(change) | {"kind": change.kind.value, "author": mask_secrets(change.author)}


def say_activation(change: Change) -> str:
    """Return a change in one line."""
    before = change.before[:SHOWN] or "no version"
    return f"{change.policy}: {change.after[:SHOWN]} is active, {before} was"
