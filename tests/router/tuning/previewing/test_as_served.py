"""A replay decides as a real service does that gets the same requests over gRPC, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.client import RouterClient
from router.decision import Reason, RoutingDecision
from router.policies.loading import load_policy
from router.serving.settings import ServerSettings
from router.tuning.previewing.logged_requests import read_log
from router.tuning.previewing.replay import encode_texts, replay, without_sessions
from tests.router.tuning.previewing.logs import real_policy, session_rows, write_log
from tests.service import running_service


@pytest.mark.usefixtures("_real_encoder")
def test_a_replay_decides_as_the_served_policy_does(tmp_path: Path) -> None:
    policy = real_policy(tmp_path)
    served = load_policy(policy)
    requests = read_log([write_log(tmp_path / "log.jsonl", *session_rows())]).requests
    ours = replay(served, requests, encode_texts(served, requests))
    with (
        running_service(ServerSettings(policies=(policy,), port=0, drain_s=1)) as address,
        RouterClient(address) as one,
    ):
        theirs = [one.route(request.query) for request in requests]
    assert len(theirs) == len(session_rows())
    for own, other in zip(ours.decisions, theirs, strict=True):
        assert isinstance(own, RoutingDecision)
        assert (own.chosen, own.reason, own.threshold, own.gain) == (
            other.chosen,
            other.reason,
            other.threshold,
            other.gain,
        )
        assert (own.candidates, own.session_id, own.policy) == (other.candidates, other.session_id, other.policy)
    held = [one for one in ours.decisions if isinstance(one, RoutingDecision) and one.reason is Reason.SESSION_HELD]
    assert held
    alone = replay(without_sessions(served), requests, encode_texts(served, requests))
    assert (alone.chosen != ours.chosen).sum() > 0
