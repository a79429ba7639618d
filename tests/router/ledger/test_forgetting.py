"""What a person or a session left in a ledger goes for ever: from the database, from the spool, and from the file."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.asking.session_ids import session_id_of
from router.cli.main import cli
from router.cli.updating.forget_rows import forget_rows
from router.errors import ConfigError
from router.ledger import spool
from router.ledger.opening import open_ledger, opened_reader
from router.ledger.reader import LoggedFeedback
from router.ledger.recorder import Ledger
from router.ledger.records import Decided, decision_row, feedback_row
from router.ledger.settings import LedgerSettings
from router.ledger.spool import Spool
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent
from router.times import new_id
from router.values import RouteQuery
from tests.router.drift.decisions import decision
from tests.router.ledger.rows import row, sqlite_ledger

SECRET = "the text of a prompt that must go"


def event(caller: str, session: str, text: str = SECRET) -> DecidedEvent:
    found = decision(decision_id=new_id(), session_id=session)
    return DecidedEvent(RouteQuery.from_prompt(text), found, caller, None, text=text)


def say(ledger: Ledger, of: str, caller: str) -> LoggedFeedback:
    digest = ledger.digester.of_name("caller", caller)
    return LoggedFeedback(new_id(), of, 1.0, "thumb", 1.0, "", "user", "", caller=digest, verified=True)


@pytest.fixture
def settings(tmp_path: Path) -> LedgerSettings:
    """Return a ledger with two decisions of Ann, in two sessions, and one of Bob, of which Ann said something."""
    settings = replace(sqlite_ledger(tmp_path), keep_prompts=True)
    ledger = open_ledger(settings)
    events = event("token:ann", "one"), event("token:ann", "two"), event("token:bob", "three", "what Bob asked")
    for one in events:
        ledger.decided(one)
        ledger.answered(AnsweredEvent(one.decision, AnswerOutcome.ANSWERED, "small", (), total_s=1.0))
    for said in (say(ledger, events[0].decision.decision_id, "token:ann"),
                 say(ledger, events[2].decision.decision_id, "token:ann"),
                 say(ledger, events[2].decision.decision_id, "token:bob")):  # fmt: skip
        ledger.writer.put(lambda said=said: feedback_row(said))  # type: ignore[misc]
    ledger.close()
    return settings


def left(settings: LedgerSettings) -> list[tuple[str, int, bool]]:
    with opened_reader(settings) as reader:
        return [(one.values["prompt"], len(one.feedback), one.outcome is not None) for one in reader.decisions()]


def everything(settings: LedgerSettings) -> bytes:
    """Return the bytes of all files of a ledger."""
    return b"".join(path.read_bytes() for path in Path(settings.place).parent.rglob("*") if path.is_file())


def elle(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["ledger", "forget", *[str(one) for one in arguments]])


def test_a_caller_goes_with_answers_and_all_that_it_said_and_others_stay(settings: LedgerSettings) -> None:
    assert SECRET.encode() in everything(settings)
    done = elle("--ledger", settings.place, "--caller", "token:ann", "--author", "me", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [told[name] for name in ("decisions", "outcomes", "feedback", "spooled", "busy_segments")] == [2, 2, 2, 0, 0]
    assert left(settings) == [("what Bob asked", 1, True)]
    assert SECRET.encode() not in everything(settings)
    with opened_reader(settings) as reader:
        (noted,) = reader.events("rows_forgotten")
    assert (noted.actor, noted.detail["decisions"]) == ("me", 2)
    assert "ann" not in json.dumps(noted.detail)


def test_a_session_or_a_decision_goes_alone(settings: LedgerSettings) -> None:
    assert elle("--ledger", settings.place, "--session", "one").exit_code == 0
    assert len(left(settings)) == 2
    with opened_reader(settings) as reader:
        first = next(iter(reader.decisions())).decision_id
    assert "1 decisions, 1 answers" in elle("--ledger", settings.place, "--decision", first).stdout
    assert [text for text, _, _ in left(settings)] == ["what Bob asked"]


@pytest.mark.parametrize("session", ["sitzung-ü", "x" * 300])
@pytest.mark.parametrize("in_header", [True, False])
def test_a_session_goes_by_the_id_that_its_client_wrote(
    settings: LedgerSettings, session: str, in_header: bool
) -> None:
    heard = session_id_of("", {"x-session-id": session.encode().decode("latin-1")} if in_header else {}, {
        "session_id": session
    })  # fmt: skip
    ledger = open_ledger(settings)
    ledger.decided(event("token:carl", heard, "of Carl"))
    ledger.close()
    assert "1 decisions" in elle("--ledger", settings.place, "--session", session).stdout
    assert "of Carl" not in [text for text, _, _ in left(settings)]


def test_rows_of_the_spool_go_too_and_those_of_others_are_replayed(settings: LedgerSettings) -> None:
    ledger = open_ledger(settings)
    waiting, more = (
        Spool(settings.spool_folder, 10**6),
        [event("token:ann", "four"), event("token:bob", "five", "later")],
    )
    ledger.close()
    decided = [Decided.of(one, with_features=False) for one in more]
    waiting.append([decision_row(one, ledger.digester, with_prompt=True) for one in decided])
    said = say(ledger, more[0].decision.decision_id, "token:bob")
    waiting.append([feedback_row(said)])
    # A service that runs has locked what it writes.
    assert elle("--ledger", settings.place, "--caller", "token:ann").exit_code == 3
    waiting.close()
    found = forget_rows(settings, callers=["token:ann"])
    assert (found.spooled, found.busy_segments) == (2, 0)
    assert SECRET.encode() not in everything(settings)
    open_ledger(settings).close()
    assert [text for text, _, _ in left(settings)] == ["what Bob asked", "later"]


def test_a_segment_that_was_replaced_meanwhile_is_not_replayed_from_the_old_file(tmp_path: Path) -> None:
    folder = Spool(tmp_path, 10**6)
    folder.append([row(1), row(2)])
    folder.close()
    (path,) = tmp_path.iterdir()
    with path.open("rb") as old:
        assert spool._locked(old.fileno(), path)
        fcntl.flock(old.fileno(), fcntl.LOCK_UN)
        assert folder.remove(lambda one: one.values["detail"]["number"] == 1) == (1, 0)
        assert not spool._locked(old.fileno(), path)
    written: list[int] = []
    folder.replay(lambda rows: written.extend(one.values["detail"]["number"] for one in rows))
    assert written == [2]


def test_who_was_never_there_is_said(settings: LedgerSettings) -> None:
    done = elle("--ledger", settings.place, "--caller", "' OR '1'='1")
    assert done.exit_code == 3
    assert "Nothing was found" in done.stdout
    assert len(left(settings)) == 3


def test_without_the_key_nobody_is_found_and_no_new_key_is_made(settings: LedgerSettings, tmp_path: Path) -> None:
    key = Path(f"{settings.place}.key")
    key.unlink()
    with pytest.raises(ConfigError, match=r"ledger\.db\.key does not exist; the key of a ledger"):
        forget_rows(settings, callers=["token:ann"])
    assert not key.exists()
    with pytest.raises(ConfigError, match="does not exist; `elle serve"):
        forget_rows(LedgerSettings(str(tmp_path / "none.db")), decisions=["x"])
    assert elle("--ledger", settings.place).exit_code == 2
