"""Spoiled policies, probes, spools and states of canaries and drift are refused by our errors, and by no others.

`make fuzz` sets `ELLE_FUZZ_INPUTS`, the number of inputs for each kind of file; without it there are a few hundred.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.artifacts import store as artifact
from probes.errors import ProbesError
from router.drift.settings import DriftSettings
from router.drift.watch import DriftWatch
from router.errors import ConfigError
from router.ledger.records import LedgerRow
from router.ledger.spool import Spool
from router.observing.observer import DecidedEvent
from router.policies.policy_file import read_policy_file
from router.rollout.canary import Canary, CanaryPlan
from router.rollout.canary_file import CanaryFile, read_canary
from router.tuning.outcomes.datasets import read_outcomes
from router.values import RouteQuery
from tests.fakes import fake_probe, write_policy
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import row

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("ELLE_FUZZ_INPUTS", "300"))

#: Values that stand in for any value of a document.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)

#: Where a file is cut, what is left out there, and what is put in its place.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)), min_size=1, max_size=4)

fuzzed = settings(max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def with_edits(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Return data in which pieces are replaced."""
    for where, n_left_out, new in edits:
        start = int(where * len(data))
        data = data[:start] + new + data[start + n_left_out :]
    return data


def with_value(document: Any, steps: list[int], value: Any) -> Any:
    """Return a document in which the value that these steps lead to is another one."""
    if not steps or not isinstance(document, (dict, list)) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[steps[0] % len(keys)]
    changed = document.copy()
    changed[key] = with_value(document[key], steps[1:], value)
    return changed


STEPS = st.lists(st.integers(0, 30), min_size=1, max_size=5)


def read_spool(file: Path) -> None:
    found: list[LedgerRow] = []
    Spool(file.parent, 10**7).replay(found.extend)
    assert all(isinstance(one.values, dict) for one in found)


def canary(file: Path) -> None:
    CanaryFile(file, Canary(CanaryPlan("c1", "new", "old", 0.02))).save()


def drift(file: Path) -> None:
    watch = DriftWatch(DriftSettings(block_s=0, block_requests=50, baseline_blocks=1), state=file)
    for _ in range(120):
        watch.decided(DecidedEvent(RouteQuery(()), decision("code"), "", None))
    watch.save()


def read_drift(file: Path) -> None:
    DriftWatch(DriftSettings(), state=file)


def spool(file: Path) -> None:
    spooled = Spool(file.parent, 10**6)
    spooled.append([row(number) for number in range(3)])
    spooled.close()
    (segment,) = file.parent.iterdir()
    segment.rename(file)


def policy(file: Path) -> None:
    write_policy(file.parent).rename(file)


def probe(file: Path) -> None:
    artifact.save(fake_probe(), file.parent)


def outcomes(file: Path) -> None:
    rows = [
        {"prompt": f"p {n // 2}", "prompt_id": f"{n // 2}", "model": "ab"[n % 2], "score": n % 3 / 2, "cost_usd": 0.1}
        for n in range(12)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))


KINDS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "policy": ("policy.yaml", policy, read_policy_file),
    "probe": ("probe.json", probe, lambda file: artifact.load(file.parent)),
    "spool": ("1.jsonl", spool, read_spool),
    "canary": ("canary.json", canary, read_canary),
    "drift": ("drift.json", drift, read_drift),
    "outcomes": ("outcomes.jsonl", outcomes, lambda file: read_outcomes(file)),
}


def refused_or_read(file: Path, data: bytes, read: Callable[[Path], object]) -> None:
    """Read a file that holds this data. Every error that is not ours fails the test."""
    file.write_bytes(data)
    with contextlib.suppress(ConfigError, ProbesError):
        read(file)
    for left in file.parent.glob("*.spoiled"):
        left.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_other_bytes_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    name, make, read = KINDS[kind]
    folder = tmp_path / "files"
    folder.mkdir()
    make(folder / name)
    good = (folder / name).read_bytes()
    read(folder / name)

    @fuzzed
    @given(EDITS)
    def check(edits: list[tuple[float, int, bytes]]) -> None:
        refused_or_read(folder / name, with_edits(good, edits), read)

    check()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"spool", "outcomes"}])
def test_a_file_with_another_value_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    name, make, read = KINDS[kind]
    folder = tmp_path / "files"
    folder.mkdir()
    make(folder / name)
    text = (folder / name).read_text("utf-8")
    good = yaml.safe_load(text) if kind == "policy" else json.loads(text)

    @fuzzed
    @given(STEPS, VALUES)
    def check(steps: list[int], value: Any) -> None:
        changed = with_value(good, steps, value)
        data = yaml.safe_dump(changed) if kind == "policy" else json.dumps(changed)
        refused_or_read(folder / name, data.encode("utf-8", "surrogatepass"), read)

    check()
