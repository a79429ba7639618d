"""Real replicas share sessions and limits through a real PostgreSQL, and outlive its death and that of each other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from router.client import RouterClient
from router.errors import ServiceError
from router.pb import router_service_pb2_grpc as pb_grpc
from router.values import RouteQuery
from router.wire import conversion
from tests.deploy.test_balancers import SESSIONS, Callers, envoy, haproxy
from tests.postgres import Postgres, missing, running_postgres
from tests.router.identity.guarded import add_token
from tests.router.policies.score_policy import write_score_policy
from tests.router.serving.processes import Service, elle_serve, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

EASY, HARD = {"confidence": 0.9}, {"confidence": 0.1}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@contextmanager
def sharing(server: Postgres, folder: Path, *more: str, n: int = 2) -> Iterator[list[Service]]:
    """Run replicas whose policy holds `large` for a session that it answered, however easy the next request is."""
    prices = {"input_usd_per_million_tokens": 10, "output_usd_per_million_tokens": 30}
    large = prices | {"cached_input_usd_per_million_tokens": 1}
    candidates = [
        {"name": "small", "model": "openai/small", "prices": prices | {"input_usd_per_million_tokens": 9}},
        {"name": "large", "model": "openai/large", "prices": large},
    ]
    policy = write_score_policy(folder, candidates=candidates)
    (folder / "state.key").write_text("0" * 32)
    url = server.new_database(f"state_{time.monotonic_ns()}")
    options = ["--policy", str(policy), "--http", "0", "--state-key", str(folder / "state.key"), *more]
    with ExitStack() as stack:
        found = [stack.enter_context(elle_serve(*options, env={"ELLE_STATE": url})) for _ in range(n)]
        for one in found:
            assert one.address
        yield found


def route_unseen(address: str, session: str) -> str:
    """Decide an easy request whose session is named in its body alone, where no balancer sees it."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        query = RouteQuery.from_prompt("hello", session_id=session, scores=EASY)
        reply = pb_grpc.RouterServiceStub(channel).Route(conversion.query_to_wire(query), timeout=20)
    return str(reply.decision.chosen)


@pytest.mark.parametrize("kind", [envoy, haproxy])
def test_sessions_keep_their_candidate_when_their_replica_is_killed(
    kind: object, tmp_path: Path, server: Postgres
) -> None:
    names = [f"session-{number}" for number in range(SESSIONS)]
    with sharing(server, tmp_path) as services, kind(tmp_path, services) as address:  # type: ignore[operator]
        with RouterClient(address) as client:
            assert {client.route("hello", session_id=name, scores=HARD).chosen for name in names} == {"large"}
        with Callers(address, scores=EASY) as callers:
            callers.wait_for_more_calls()
            assert {route_unseen(address, name) for name in names} == {"large"}
            services[0].process.kill()
            callers.wait_for_more_calls()
            time.sleep(1)
            callers.wait_for_more_calls()
        assert {route_unseen(address, name) for name in names} == {"large"}
    assert not callers.failed
    assert {one for found in callers.chosen.values() for one in found} == {"large"}


def knows_after(delay_s: float, services: list[Service], session: str) -> bool:
    """Return whether the second replica knows a session that the first one has decided so long before."""
    with RouterClient(services[0].address) as client:
        assert client.route("hello", session_id=session, scores=HARD).chosen == "large"
    time.sleep(delay_s)
    return route_unseen(services[1].address, session) == "large"


def test_what_one_replica_decided_another_knows_within_two_seconds(tmp_path: Path, server: Postgres) -> None:
    with sharing(server, tmp_path) as services:
        for delay_s in (0.1, 0.25, 0.5, 1.0, 2.0):
            known = sum(knows_after(delay_s, services, f"{delay_s}-{number}") for number in range(10))
            print(f"after {delay_s} s the other replica knew {known} of 10 sessions")
    assert known == 10


def test_a_database_that_is_killed_and_comes_back_fails_no_call(tmp_path: Path, server: Postgres) -> None:
    with sharing(server, tmp_path) as services, Callers([one.address for one in services], scores=HARD) as callers:
        callers.wait_for_more_calls()
        server.kill()
        callers.wait_for_more_calls()
        time.sleep(3)
        callers.wait_for_more_calls()
        server.start()
        server.wait_until_ready()
        time.sleep(3)
        callers.wait_for_more_calls()
        # A session that was asked for too early is known as a new one, so each look needs another.
        names = (f"later-{number}" for number in range(100))
        wait_until(lambda: knows_after(1.0, services, next(names)))
    assert not callers.failed


@pytest.mark.parametrize("replicas", [2, 1])
def test_a_token_has_one_limit_behind_replicas_and_workers(replicas: int, tmp_path: Path, server: Postgres) -> None:
    """One replica has two workers, which need no database."""
    text, _ = add_token(tmp_path / "tokens.json", "me", requests_per_minute=40)
    more = ["--tokens", str(tmp_path / "tokens.json"), *(["--workers", "2"] if replicas == 1 else [])]
    with sharing(server, tmp_path, *more, n=replicas) as services:
        let_in = 0
        for number in range(200):
            # Each has a connection of its own, which may lead to another worker.
            address = services[number % replicas].address
            with contextlib.suppress(ServiceError), RouterClient(address, api_key=text) as client:
                client.route("hello", scores=EASY)
                let_in += 1
            time.sleep(0.005)
    print(f"{let_in} of 200 calls were let in at a limit of 40 a minute")
    assert 40 <= let_in < 60
