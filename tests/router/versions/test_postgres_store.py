"""A store in a real PostgreSQL keeps what a directory keeps, and two real replicas follow what is activated in it."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from router.client import RouterClient
from router.errors import ConfigError, UnknownVersionError, VersionConflictError
from router.versions.opening import store_at
from router.versions.postgres_store import PostgresStore
from router.versions.store import ChangeRequest, activate, find_version, load_active, roll_back
from router.versions.version import read_contents
from tests.fakes import write_policy
from tests.postgres import Postgres, missing, running_postgres
from tests.router.serving.processes import elle_serve, wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ME = ChangeRequest("me", "a test")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def url(server: Postgres, request: pytest.FixtureRequest) -> str:
    """Make a database of its own for each test."""
    return server.new_database(request.node.name[:60])


def fixed(folder: Path, candidate: str) -> Path:
    folder.mkdir(exist_ok=True)
    return write_policy(folder, probe=None, rule={"kind": "fixed", "candidate": candidate}, version=candidate)


def test_versions_come_back_byte_for_byte_and_the_trail_is_that_of_a_directory(url: str, tmp_path: Path) -> None:
    mine, yours = store_at(url), store_at(url)
    path = write_policy(tmp_path)
    text, files = path.read_bytes(), {one.name: one.read_bytes() for one in (tmp_path / "probe").iterdir()}
    first = mine.add(*read_contents(path))
    assert mine.add(*read_contents(path)) == first
    path.unlink()
    shutil.rmtree(tmp_path / "probe")
    opened = yours.open(first.id)
    assert opened.policy.read_bytes() == text
    assert opened.probe is not None
    assert {one.name: one.read_bytes() for one in opened.probe.iterdir()} == files
    second = yours.add(*read_contents(fixed(tmp_path / "two", "small")))
    activate(mine, first, ME)
    before = yours.marks()
    activate(yours, second, ME)
    assert yours.marks() != before
    assert mine.marks() == yours.marks()
    roll_back(mine, "test", ME)
    assert yours.trail().active == {"test": first.id}
    assert [one.number for one in yours.trail().changes] == [1, 2, 3]
    assert find_version(yours, "test") == first
    assert list(mine.versions()) == sorted((first, second), key=lambda one: one.id)
    policy, *_ = load_active(yours)
    assert policy.ref.digest == first.policy_digest
    with pytest.raises(UnknownVersionError):
        mine.open("0" * 64)


def test_of_writers_that_expect_the_same_one_wins(url: str, tmp_path: Path) -> None:
    stores = [store_at(url) for _ in range(4)]
    versions = [
        store.add(*read_contents(fixed(tmp_path / f"{number}", ("small", "large")[number % 2])))
        for number, store in enumerate(stores)
    ]
    ends: list[str] = []

    def write(number: int) -> None:
        try:
            activate(stores[number], versions[number], ChangeRequest("me", "a race", expected=""))
            ends.append("won")
        except VersionConflictError:
            ends.append("lost")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["lost", "lost", "lost", "won"]


def test_edits_in_the_database_are_noticed(url: str, tmp_path: Path) -> None:
    store = store_at(url)
    version = store.add(*read_contents(fixed(tmp_path, "small")))
    activate(store, version, ME)
    engine = sa.create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE elle_versions SET policy = policy || 'x'::bytea"))
        connection.execute(sa.text("UPDATE elle_trail SET line = replace(line::text, '61', '62')::bytea"))
    engine.dispose()
    with pytest.raises(ConfigError, match="changed"):
        store.open(version.id)
    with pytest.raises(ConfigError, match="audit trail"):
        store.trail()


def test_a_waiting_service_is_told_at_once_and_a_database_that_is_gone_changes_nothing(
    url: str, tmp_path: Path
) -> None:
    store = store_at(url)
    assert isinstance(store, PostgresStore)
    version = store.add(*read_contents(fixed(tmp_path, "small")))

    async def told() -> None:
        # The first wait begins to listen.
        await store.wait(0.01)
        waiting = asyncio.create_task(store.wait(3600))
        await asyncio.to_thread(activate, store, version, ME)
        await asyncio.wait_for(waiting, 60)
        store._stop_listening()

    asyncio.run(told())
    marks = store.marks()
    gone = PostgresStore("postgresql://elle:secret@127.0.0.1:1/nothing")
    gone._marks = marks
    assert gone.marks() == marks
    asyncio.run(gone.wait(0.01))
    with pytest.raises(ConfigError, match=r"postgresql://127\.0\.0\.1/nothing cannot be used") as refused:
        gone.trail()
    assert "secret" not in str(refused.value)


@pytest.mark.slow
def test_two_replicas_take_over_what_is_activated_once_and_mix_nothing(url: str, tmp_path: Path) -> None:
    store = store_at(url)
    versions = {name: store.add(*read_contents(fixed(tmp_path / name, name))) for name in ("small", "large")}
    digests = {version.policy_digest: name for name, version in versions.items()}
    activate(store, versions["small"], ME)
    seen: dict[int, list[str]] = {0: [], 1: []}
    ending = threading.Event()

    def ask(number: int, address: str) -> None:
        with RouterClient(address) as client:
            while not ending.is_set():
                decision = client.route("hello")
                seen[number].append(decision.chosen)
                assert digests[decision.policy.digest] == decision.chosen

    with elle_serve("--store", url) as one, elle_serve("--store", url) as two:
        threads = [threading.Thread(target=ask, args=item) for item in enumerate((one.address, two.address))]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(seen.values()))
        for name in ("large", "small", "large"):
            activate(store, versions[name], ME)
            began = time.monotonic()
            wait_until(lambda name=name: all(found[-1] == name for found in seen.values()))  # type: ignore[misc]
            print(f"both replicas decide by the new version after {time.monotonic() - began:.2f} s")
        ending.set()
        for thread in threads:
            thread.join()
    assert all(set(found) == {"small", "large"} for found in seen.values())
