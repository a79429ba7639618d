"""Tests of kept responses over two replicas that share a real PostgreSQL: each knows what the other one was given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from router.ledger.settings import DatabaseSettings
from router.observing.catalogue import ANSWER_COST
from tests.gateways.responses_door.background import Background, background
from tests.gateways.responses_door.response_upstream import COST_USD
from tests.postgres import Postgres, missing, running_postgres

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def _world(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    folder: Path = tmp_path_factory.mktemp("replicas")
    (folder / "state.key").write_text("0" * 32)
    state = DatabaseSettings(server.new_database("kept"), folder / "state.key", option="--state")
    with background(folder, n=2, state=state) as services:
        yield services


@pytest.fixture
def services(_world: Background) -> Background:
    _world.begin()
    return _world


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def made(services: Background, **more: Any) -> str:
    """Ask the first replica for a response, and wait until the second one knows it."""
    with services.sdk() as sdk:
        response_id = sdk.responses.create(model="small", input="hello", **more).id
    until(lambda: services.get(response_id, 1).status_code == 200)
    return response_id


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_conversation_goes_on_at_another_replica_with_the_candidate_that_keeps_it(
    services: Background, streamed: bool
) -> None:
    previous = made(services)
    for number in (1, 0, 1):
        more: Any = {"model": "elle/test", "input": "and now?", "previous_response_id": previous}
        with services.sdk(number) as sdk:
            if streamed:
                with sdk.responses.stream(**more) as stream:
                    went_on: Any = stream.get_final_response()
            else:
                went_on = sdk.responses.create(**more)
        assert (went_on.elle["candidate"], went_on.elle["reason"]) == ("small", "SESSION_HELD")
        assert json.loads(services.upstream.sent[-1])["previous_response_id"] == previous
        previous = went_on.id
        until(lambda number=number, known=previous: services.get(known, 1 - number).status_code == 200)


def test_a_response_is_fetched_cancelled_and_deleted_at_another_replica(services: Background) -> None:
    response_id = made(services, background=True)
    with services.sdk(1) as sdk:
        assert sdk.responses.retrieve(response_id).status == "queued"
        assert [item.id for item in sdk.responses.input_items.list(response_id)] == ["msg_in"]  # type: ignore[union-attr]
        assert sdk.responses.cancel(response_id).status == "cancelled"
        sdk.responses.delete(response_id)
    with services.sdk(0) as sdk, pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(response_id)


def test_another_caller_does_not_learn_of_a_response_at_any_replica(services: Background) -> None:
    response_id = made(services)
    for number in (0, 1):
        assert services.get(response_id, number, services.another).status_code == 404


def charged_usd(services: Background) -> float:
    """Return what all callers have spent in this test, as the shared database says."""
    with psycopg.connect(services.state) as connection:
        [(usd,)] = connection.execute("SELECT coalesce(sum(usd), 0) FROM elle_usage_1")
    return float(usd) - services.usd_before


def settled(services: Background, response_id: str, *numbers: int, again: int = 1) -> None:
    """End a response, fetch it at these replicas at once, and wait until they have settled what they had to."""
    services.upstream.end(response_id)
    with ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda number: services.get(response_id, number).status_code, numbers * again)
        assert set(replies) == {200}


def counted_usd(services: Background) -> float:
    return sum(one.counted(ANSWER_COST) for one in services.replicas)


def costs(services: Background) -> list[float | None]:
    return [row["cost_usd"] for row in services.outcomes()]


def test_what_is_fetched_at_all_replicas_at_once_is_charged_once(services: Background) -> None:
    services.usd_before = charged_usd(services)
    n = 5
    for _ in range(n):
        settled(services, made(services, background=True), 0, 1, again=4)
    # A replica settles one after the other, so when it has settled these, it has nothing more to do for those before.
    for number in (0, 1):
        settled(services, made(services, background=True), number)
    until(lambda: None not in costs(services))
    assert costs(services) == pytest.approx([COST_USD] * (n + 2))
    # The ledger is told before the metrics are.
    until(lambda: counted_usd(services) == pytest.approx((n + 2) * COST_USD))
    until(lambda: charged_usd(services) == pytest.approx((n + 2) * COST_USD))


def test_what_is_fetched_while_the_database_is_away_is_charged_once_when_it_is_back(
    services: Background, server: Postgres
) -> None:
    services.usd_before = charged_usd(services)
    response_id = made(services, background=True)
    # A sum that is being told when the database dies may count twice.
    until(lambda: charged_usd(services) > 0)
    server.kill()
    settled(services, response_id, 0, 1)
    assert costs(services) == [None]
    server.start()
    server.wait_until_ready()
    until(lambda: None not in costs(services))
    for number in (0, 1):
        settled(services, made(services, background=True), number)
    until(lambda: None not in costs(services))
    assert costs(services) == pytest.approx([COST_USD] * 3)
    until(lambda: counted_usd(services) == pytest.approx(3 * COST_USD))
    until(lambda: charged_usd(services) == pytest.approx(3 * COST_USD))
