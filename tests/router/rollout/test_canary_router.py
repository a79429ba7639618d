"""A router that follows a canary's file decides a share by the new policy, and all by the old one once it is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.observing.tally import Snapshot
from router.policies.loading import load_policies
from router.rollout.canary import Canary, CanaryPlan
from router.rollout.canary_file import CanaryFile, CanaryFollower
from router.rollout.canary_router import CanaryRouter
from router.serving.reports import _canary_values, _watched_values
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.serving.processes import RULE


class Service:
    """A router with an old and a new policy, which follows the canary of a file."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.state = folder / "canary.json"
        encoder = FakeEncoder()
        policies = load_policies([write_policy(folder, name=name) for name in names])
        self.router = CanaryRouter(policies, {encoder.spec.identity: encoder})
        self.router.follower = CanaryFollower(self.state, lambda: self.router.policies)

    def begin(self, share: float) -> CanaryFile:
        file = CanaryFile(self.state, Canary(CanaryPlan("c1", "new", "old", 0.02, steps=(share,))))
        file.save()
        self.look()
        return file

    def look(self) -> None:
        """Let the follower look at the file, as the service does once a second."""
        assert self.router.follower is not None
        self.router.follower.refresh()

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


def test_a_canary_that_is_stopped_decides_nothing_from_the_next_look_on(service: Service) -> None:
    file = service.begin(1.0)
    assert set(service.decided_by()) == {"new"}
    file.canary.stop("enough")
    file.save()
    assert set(service.decided_by(5)) == {"new"}
    service.look()
    assert set(service.decided_by()) == {"old"}


def test_a_request_that_asks_for_a_policy_keeps_it(service: Service) -> None:
    service.begin(1.0)
    asked = service.router.decide(RouteQuery.from_prompt("why?", overrides=Overrides(policy="new")))
    assert asked.policy.name == "new"
    by_name = service.router.decide(RouteQuery.from_prompt("why?", overrides=Overrides(policy="old")))
    assert by_name.policy.name == "new"  # the base is the policy whose requests are tried


def test_a_policy_that_is_not_served_is_assigned_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path, "old")
    file, follower = service.begin(1.0), service.router.follower
    assert set(service.decided_by(5)) == {"old"}
    assert follower is not None
    assert "it decides nothing, because this service does not serve 'new' (--policy)" in follower.told()
    assert _canary_values(follower)["elle_canary_share"] == {("new", "old", "running"): 0.0}
    assert file.canary.share == 1.0


def test_a_file_that_is_broken_leaves_the_canary_and_one_that_is_gone_ends_it(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.begin(1.0)
    whole = service.state.read_bytes()
    for broken in (b"{", whole[:-40]):
        service.state.write_bytes(broken)
        service.look()
        assert set(service.decided_by(5)) == {"new"}
    assert f"the canary in {service.state} cannot be used, and the last good state stays" in caplog.text
    service.state.unlink()
    service.look()
    assert "there is no such file, so the policies that serve decide everything" in caplog.text
    assert set(service.decided_by(5)) == {"old"}
    service.state.write_bytes(whole)
    service.look()
    assert set(service.decided_by(5)) == {"new"}


def test_the_metrics_of_all_processes_say_how_the_canary_is_doing(service: Service) -> None:
    file = service.begin(0.25)
    for _ in range(10):
        file.canary.label(-0.5)
    file.canary.ended("new", failed=False, latency_s=1.0)
    file.save()
    service.look()
    total, follower = Snapshot(), service.router.follower
    assert follower is not None
    for _ in range(2):
        # Both workers of a service follow the same file.
        total.add(Snapshot(_canary_values(follower)))
    low, high = file.canary.evidence.loss_interval()
    assert low < 0
    assert total.values == {
        "elle_canary_share": {("new", "old", "running"): 0.25},
        "elle_canary_loss": {("new", "low"): low, ("new", "high"): high, ("new", "limit"): 0.02},
        "elle_canary_labels": {("new",): 10.0},
        "elle_canary_requests": {("new",): 1.0},
    }


def test_a_file_that_is_broken_at_the_start_is_not_called_missing(tmp_path: Path) -> None:
    state = tmp_path / "canary.json"
    state.write_text('{"schema": "elle.canary/1"')
    assert CanaryFollower(state, lambda: ()).told() == ": the policies that serve decide everything"
    state.unlink()
    assert "there is no such file" in CanaryFollower(state, lambda: ()).told()


def test_the_metrics_say_what_cannot_be_read(service: Service) -> None:
    service.begin(0.25)
    service.state.write_text("{")
    service.look()
    follower = service.router.follower
    assert follower is not None
    expected = {
        "elle_watched_failures": {("canary",): 1.0},
        "elle_watched_failing": {("canary",): 1.0, ("policies",): 0.0},
    }
    assert _watched_values([follower], "") == expected


def test_elle_validate_says_what_is_tried_with_a_policy(service: Service, tmp_path: Path) -> None:
    service.begin(0.25)
    explores = {"explore": {"share": 0.02, "usd_per_day": 3.0}}
    for name, said in (("old", "It is the base in a canary"), ("new", "It is tried"), ("third", "It has no part")):
        path = write_policy(tmp_path, name=name, probe=None, rule=RULE, safe_default="small", **explores)
        done = CliRunner().invoke(
            cli, ["validate", str(path), "--deciding-only", "--canary", str(service.state), "--json"]
        )
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert found["explore"] == {"share": 0.02, "usd_per_day": 3.0}
        assert found["trials"][0].startswith("It explores: 2.0% of its decisions go to another eligible candidate")
        assert found["trials"][1].startswith(said)


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
