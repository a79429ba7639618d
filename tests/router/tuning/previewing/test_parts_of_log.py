"""The parts of a log by kind are counted by the kind that each decision names first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from router.decision import RoutingDecision
from router.policies.loading import load_policy
from router.tuning.previewing.logged_requests import read_log
from router.tuning.previewing.prompt_caches import Bill
from router.tuning.previewing.replay import replay
from router.tuning.previewing.slices_of_log import parts_of_log
from tests.fakes import FakeEncoder, probe_with_kinds, write_policy
from tests.router.tuning.previewing.logs import write_log


def test_kinds_are_the_nearest_of_each_decision(tmp_path: Path) -> None:
    served = load_policy(write_policy(tmp_path, probe_with_kinds()))
    requests = read_log([write_log(tmp_path / "log.jsonl", *({"prompt": f"prompt {i}"} for i in range(60)))]).requests
    ours = replay(served, requests, {one.ask.text: FakeEncoder().encode(one.ask.text) for one in requests})
    free = Bill(np.ones(60), np.zeros(60), np.ones(60), 0)
    found = parts_of_log(requests, ours, free, free, served.rules.file.names)["kind"]
    expected: Counter[str] = Counter()
    for one in ours.decisions:
        assert isinstance(one, RoutingDecision)
        assert one.kinds is not None
        expected[one.kinds.nearest[0].name if one.kinds.known else "(far from all known kinds)"] += 1
    assert len(expected) > 2
    assert {name: part.n for name, part in found.items()} == expected
    assert sum(part.saved or 0.0 for part in found.values()) == 0
