"""Processes exchange sessions and usage through a real SQLite file and a real PostgreSQL, and go on without either."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from router.deciding.session_memory import AnswerMemory
from router.deciding.settings import RouterSettings
from router.errors import ConfigError
from router.identity.accounts import SLICE, Accounts
from router.identity.principal import Principal, Scope, TokenLimits
from router.ledger.settings import DatabaseSettings
from router.sharing import exchange as exchanges
from router.sharing.exchange import StateExchange, StateSettings, exchanging
from router.sharing.private_state import private_state
from router.sharing.session_table import shared_block
from tests.postgres import Postgres, missing, running_postgres

NAMES = ("small", "large")
needs_postgres = pytest.mark.skipif(bool(missing()), reason=missing())


@dataclass
class Process:
    """What one process knows."""

    memory: AnswerMemory
    accounts: Accounts
    exchange: StateExchange

    def remember(self, session: str, candidate: str = "large") -> None:
        self.memory.sessions.remember("me", session, "p", candidate, 7)

    def knows(self, session: str, candidate: str = "large") -> bool:
        held = self.memory.sessions.held("me", session, "p", NAMES)
        return held is not None and (held.candidate, held.input_tokens) == (candidate, 7)


@asynccontextmanager
async def process(settings: DatabaseSettings, *, ahead_s: float = 0.0) -> AsyncIterator[Process]:
    block = shared_block(1000, settings.key())
    memory = AnswerMemory(RouterSettings(max_sessions=1000, shared_sessions=block), time.monotonic)
    accounts = Accounts(now=lambda: time.time() + ahead_s)
    shared = StateSettings(settings, 3600, 1000)
    memories = memory.sessions, memory.responses, memory.unsettled
    async with exchanging(shared, memories, accounts) as exchange:
        memory.settle_once = exchange.settle_once
        yield Process(memory, accounts, exchange)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("0" * 32)
    return tmp_path / "key"


@pytest.fixture
def postgres(server: Postgres, key: Path, request: pytest.FixtureRequest) -> DatabaseSettings:
    return DatabaseSettings(server.new_database(request.node.name[:60]), key)


def caller(name: str = "me", **limits: Any) -> Principal:
    return Principal(name, name, frozenset(Scope), TokenLimits.model_validate(limits))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@needs_postgres
async def test_replicas_know_each_others_sessions_responses_and_spending(postgres: DatabaseSettings) -> None:
    async with process(postgres) as mine, process(postgres) as yours:
        mine.remember("one")
        mine.memory.responses.remember("me", "response", "p", "small", 3)
        await until(lambda: yours.knows("one"))
        await until(lambda: yours.memory.responses.held("me", "response", "p", NAMES))
        yours.remember("one", "small")
        await until(lambda: mine.knows("one", "small"))
        mine.accounts.of(caller(usd_per_day=5)).spend(1.5)
        account = yours.accounts.of(caller(usd_per_day=5))
        await until(lambda: account.take_request() == 0 and account.usd_today == pytest.approx(1.5))
    # One that starts later knows everything before it begins.
    async with process(postgres) as later:
        assert later.knows("one", "small")


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=needs_postgres), "sqlite"])
async def test_each_key_is_settled_by_one_process(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, key: Path
) -> None:
    if kind == "sqlite":
        settings = DatabaseSettings(str(tmp_path / "state.db"), key)
    else:
        settings = request.getfixturevalue("postgres")
    done: list[tuple[bytes, int]] = []
    names = [bytes([number]) * 16 for number in range(30)]
    async with process(settings) as mine, process(settings) as yours:
        for number, one in enumerate((mine, yours)):
            for name in names if number else reversed(names):
                one.memory.settle_once(name, lambda name=name, number=number: done.append((name, number)))  # type: ignore[misc]
        await until(lambda: len(done) >= len(names))
    # The last exchange has come.
    assert sorted(name for name, _ in done) == names
    async with process(settings) as later:
        later.memory.settle_once(names[0], lambda: done.append((names[0], 2)))
    assert len(done) == len(names)


async def test_a_session_that_is_called_like_a_response_is_another_thing(tmp_path: Path) -> None:
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as mine:
        mine.memory.responses.remember("me", "same", "p", "small", 3)
        mine.remember("same")
    async with process(settings) as later:
        assert later.knows("same")
        assert later.memory.responses.held("me", "same", "p", NAMES)


@needs_postgres
async def test_what_lies_in_the_database_names_nobody(postgres: DatabaseSettings) -> None:
    async with process(postgres) as mine:
        mine.memory.sessions.remember("a-caller", "a-session", "a-policy", "large", 7)
        mine.accounts.of(caller("a-caller", usd_per_day=5)).spend(1)
    with psycopg.connect(postgres.place) as connection:
        found = connection.execute("SELECT s::text FROM elle_sessions_1 s UNION SELECT u::text FROM elle_usage_1 u")
        rows = [row[0] for row in found]
    assert len(rows) == 2
    assert not any(word.encode().hex() in row or word in row for row in rows for word in ("caller", "session", "large"))


@needs_postgres
async def test_a_slow_transaction_hides_no_change_that_ended_before_it(postgres: DatabaseSettings) -> None:
    async with process(postgres) as mine, process(postgres) as yours:
        mine.remember("first")
        await until(lambda: yours.knows("first"))
        async with await psycopg.AsyncConnection.connect(postgres.place) as slow:
            # Its number is lower than that of the next change, and it ends later.
            await slow.execute("UPDATE elle_sessions_1 SET tokens = 7, change = pg_current_xact_id()")
            mine.remember("second")
            await until(lambda: yours.knows("second"))
            await slow.execute("UPDATE elle_sessions_1 SET at = at + 1, tokens = 9, change = pg_current_xact_id()")
            await slow.commit()
        key = yours.memory.sessions.key("me", "first", "p")
        await until(lambda: (found := yours.memory.sessions._table.get(key)) and found.tokens == 9)


@needs_postgres
async def test_clocks_that_differ_change_nothing(postgres: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncExitStack() as stack:
        mine = await stack.enter_async_context(process(postgres))
        mine.remember("one")
        mine.accounts.of(caller(usd_per_day=1)).spend(2)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        yours = await stack.enter_async_context(process(postgres))
        await until(lambda: yours.knows("one"))
        held = yours.memory.sessions.held("me", "one", "p", NAMES)
        assert held is not None
        assert held.idle_s < 20
        account = yours.accounts.of(caller(usd_per_day=1))
        await until(lambda: account.take_request() == 0 and account.budget_wait_s() > 1)


@pytest.mark.slow
@needs_postgres
async def test_a_database_that_is_killed_or_stopped_costs_nothing_but_what_is_shared(
    postgres: DatabaseSettings, server: Postgres
) -> None:
    async with process(postgres) as mine, process(postgres) as yours:
        account = mine.accounts.of(caller(usd_per_day=10))
        server.kill()
        mine.remember("one")
        await until(lambda: mine.exchange.counts.failures and not account.is_shared)
        # Without the others it holds to the limit alone.
        account.spend(10 * SLICE * 2)
        assert account.budget_wait_s() == 0
        account.spend(10)
        assert account.budget_wait_s() > 1
        assert mine.knows("one")
        server.start()
        server.wait_until_ready()
        await until(lambda: yours.knows("one"))
        server.signal_all(signal.SIGSTOP)
        before = mine.exchange.counts.failures
        mine.remember("two")
        await until(lambda: mine.exchange.counts.failures > before)
        server.signal_all(signal.SIGCONT)
        await until(lambda: yours.knows("two"))


async def test_a_restart_keeps_sessions_and_the_money_of_the_day_in_a_file(tmp_path: Path) -> None:
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as before:
        before.remember("one")
        before.accounts.of(caller(usd_per_day=5)).spend(6)
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0
    async with process(settings) as after:
        assert after.knows("one")
        account = after.accounts.of(caller(usd_per_day=5))
        await until(lambda: account.take_request() == 0 and account.usd_today == pytest.approx(6))


async def test_a_locked_file_holds_nobody_up_and_what_waited_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.sharing.state_rows.STATEMENT_S", 0.05)
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as mine:
        with sqlite3.connect(settings.place, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            mine.remember("one")
            await until(lambda: mine.exchange.counts.failures)
            other.execute("ROLLBACK")
    async with process(settings) as later:
        assert later.knows("one")


async def test_a_full_disk_or_a_folder_that_is_missing_is_counted_and_nothing_more(tmp_path: Path) -> None:
    full = DatabaseSettings("/dev/full", tmp_path / "key")
    (tmp_path / "key").write_text("0" * 32)
    async with process(full) as mine:
        mine.remember("one")
        assert mine.knows("one")
        await until(lambda: mine.exchange.counts.failures)


async def test_no_more_sessions_wait_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "_MOST_WAITING", 10)
    (tmp_path / "key").write_text("0" * 32)
    async with process(DatabaseSettings("/dev/full", tmp_path / "key")) as mine:
        for number in range(30):
            mine.remember(str(number))
        await until(lambda: mine.exchange.counts.failures)
        assert len(mine.exchange._waiting) <= 10
        assert mine.exchange.counts.unsaid >= 20


async def test_a_process_with_another_key_is_refused_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        (tmp_path / str(number)).write_text(str(number) * 32)
    place = str(tmp_path / "state.db")
    async with process(DatabaseSettings(place, tmp_path / "0")) as mine:
        mine.remember("one")
    async with process(DatabaseSettings(place, tmp_path / "1")) as other:
        assert other.exchange.counts.failures
    assert "used with another key; give all processes the same --state-key" in caplog.text


async def test_no_more_sessions_are_kept_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "_TIDY_S", 0.0)
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as mine:
        for number in range(5000):
            mine.remember(str(number))
    # The last exchange writes what was new, and then deletes what is too much.
    with sqlite3.connect(settings.place) as connection:
        assert connection.execute("SELECT count(*) FROM elle_sessions_1").fetchone() == (2000,)


async def test_a_row_that_cannot_be_is_survived(tmp_path: Path) -> None:
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as mine:
        mine.remember("one")
    with sqlite3.connect(settings.place) as connection:
        now = time.time()
        for row in ((b"k" * 16, 9, b"n" * 16, 1), (b"k", 0, b"n", 1), (b"x" * 16, 0, b"n" * 16, -5)):
            connection.execute("INSERT INTO elle_sessions_1 VALUES (?, ?, ?, ?, ?)", (*row, now))
    async with process(settings) as later:
        assert later.knows("one")
        assert later.exchange.counts.failures == 0


async def test_old_rows_are_deleted(tmp_path: Path) -> None:
    settings = DatabaseSettings(str(tmp_path / "state.db"))
    async with process(settings) as mine:
        mine.remember("one")
    with sqlite3.connect(settings.place) as connection:
        connection.execute("UPDATE elle_sessions_1 SET at = at - 4000")
        connection.execute("INSERT INTO elle_usage_1 VALUES (x'00', 3, 1, 1, 1, 1.0)")
    async with process(settings) as later:
        assert not later.knows("one")
    with sqlite3.connect(settings.place) as connection:
        assert connection.execute("SELECT count(*) FROM elle_sessions_1").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM elle_usage_1").fetchone() == (0,)


def test_a_service_leaves_no_private_database_and_takes_away_those_of_killed_ones() -> None:
    with private_state() as settings:
        assert settings is not None
        folder = Path(settings.place).parent
        assert folder.stat().st_mode & 0o077 == 0
        left = folder.with_name("elle-state-999999999-left")
        left.mkdir()
        with private_state() as other:
            assert other is not None
            assert other.place != settings.place
        assert not left.exists()
        assert folder.exists()
    assert not folder.exists()


def test_a_service_without_a_folder_that_it_may_write_starts_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("router.sharing.private_state._MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "none"))
    with private_state() as settings:
        assert settings is None
    assert "each worker holds callers to their limits by itself" in caplog.text


def test_a_url_needs_a_key_that_all_replicas_have() -> None:
    with pytest.raises(ConfigError, match="--state-key must name a file"):
        DatabaseSettings("postgresql://db/elle", option="--state").key()
