"""A router that follows a canary's file decides a share by the new policy, and all by the old one once it is over."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from router.policies.loading import load_policies
from router.rollout.canary import Canary, CanaryPlan
from router.rollout.canary_file import CanaryFile, Follower
from router.rollout.canary_router import CanaryRouter
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy


class Service:
    """A router with an old and a new policy, which follows the canary of a file with a clock of its own."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.now, self.state = 0.0, folder / "canary.json"
        encoder = FakeEncoder()
        policies = load_policies([write_policy(folder, name=name) for name in names])
        self.router = CanaryRouter(policies, {encoder.spec.identity: encoder})
        self.router.follower = Follower(self.state, clock=lambda: self.now)

    def begin(self, share: float) -> CanaryFile:
        file = CanaryFile(self.state, Canary(CanaryPlan("c1", "new", "old", 0.02, steps=(share,))))
        file.save()
        self.now += 2
        return file

    def decided_by(self, n: int = 60, **query: str) -> list[str]:
        asked = [RouteQuery.from_prompt(f"prompt number {i}", **query) for i in range(n)]
        return [self.router.decide(one).policy.name for one in asked]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path, "old", "new")


def test_without_a_file_the_policy_that_serves_decides(service: Service) -> None:
    assert set(service.decided_by()) == {"old"}


def test_a_share_is_decided_by_the_new_policy_and_a_session_never_changes_sides(service: Service) -> None:
    service.begin(0.5)
    assert set(service.decided_by()) == {"old", "new"}
    for session in ("one", "two", "three", "four"):
        assert len(set(service.decided_by(5, session_id=session))) == 1


def test_a_canary_that_is_stopped_decides_nothing_within_a_second(service: Service) -> None:
    file = service.begin(1.0)
    assert set(service.decided_by()) == {"new"}
    file.canary.stop("enough")
    file.save()
    assert set(service.decided_by(5)) == {"new"}
    service.now += 1.1
    assert set(service.decided_by()) == {"old"}


def test_a_request_that_asks_for_a_policy_keeps_it(service: Service) -> None:
    service.begin(1.0)
    asked = service.router.decide(RouteQuery.from_prompt("why?", overrides=Overrides(policy="new")))
    assert asked.policy.name == "new"
    by_name = service.router.decide(RouteQuery.from_prompt("why?", overrides=Overrides(policy="old")))
    assert by_name.policy.name == "new"  # the base is the policy whose requests are tried


def test_a_policy_that_is_not_served_and_a_file_that_is_broken_assign_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path, "old")
    service.begin(1.0)
    assert set(service.decided_by(5)) == {"old"}
    service.state.write_text("{")
    service.now += 2
    with caplog.at_level(logging.ERROR):
        assert set(service.decided_by(5)) == {"old"}
    assert "no canary decides" in caplog.text


def test_requests_to_another_policy_than_the_base_are_left_alone(tmp_path: Path) -> None:
    service = Service(tmp_path, "default", "old", "new")
    service.begin(1.0)
    assert set(service.decided_by()) == {"default"}
    asked = service.router.decide(RouteQuery.from_prompt("why?", overrides=Overrides(policy="old")))
    assert asked.policy.name == "new"


async def test_the_same_holds_in_an_event_loop(service: Service) -> None:
    service.begin(1.0)
    decided = await service.router.adecide(RouteQuery.from_prompt("why?"))
    await service.router.close()
    assert decided.policy.name == "new"
