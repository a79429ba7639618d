"""The observer watches each probe by itself, logs alarms, and keeps its baselines over a restart."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from router.decision import ArtifactRef, Reason, RoutingDecision
from router.drift.settings import DriftSettings
from router.drift.watch import MAX_PROBES, NO_PROBE, DriftWatch
from router.errors import ConfigError
from router.observing.observer import DecidedEvent
from router.values import RouteQuery
from tests.router.drift.decisions import decision

SETTINGS = DriftSettings(block_s=0, block_requests=50, baseline_blocks=2)


def feed(watch: DriftWatch, what: RoutingDecision, n: int) -> None:
    for _ in range(n):
        watch.decided(DecidedEvent(RouteQuery(()), what, "", None))


def test_an_alarm_is_logged_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = DriftWatch(SETTINGS)
    feed(watch, decision("greeting"), 100)
    assert not caplog.records
    feed(watch, decision("code"), 50)
    assert "drift: policy p: the known kind of request that the prompt is nearest to changed" in caplog.text
    feed(watch, decision("greeting"), 50)
    assert "as in the baseline again" in caplog.text


def test_each_probe_has_a_baseline_of_its_own_and_a_bounded_number_is_watched() -> None:
    watch = DriftWatch(SETTINGS)
    feed(watch, decision(probe=None), 1)
    for i in range(MAX_PROBES):
        feed(watch, decision(probe=ArtifactRef("probe", "1", f"digest {i}")), 1)
    assert NO_PROBE not in watch.watches
    assert len(watch.watches) == MAX_PROBES


def test_requests_for_which_a_session_held_its_candidate_are_not_counted() -> None:
    watch = DriftWatch(SETTINGS)
    feed(watch, decision(reason=Reason.SESSION_HELD), 10)
    assert not watch.watches


def test_baselines_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "drift.json"
    watch = DriftWatch(SETTINGS, state=state)
    feed(watch, decision("greeting"), 120)
    watch.save()
    again = DriftWatch(SETTINGS, state=state)
    feed(again, decision("code"), 30)
    assert [alarm.signal for alarm in again.watches["digest"].alarms] == ["kind"]


@pytest.mark.parametrize("contents", [b"", b"[]", b"{", b'{"schema": "elle.drift/1"}', b"[" * 100_000])
def test_a_file_that_is_no_state_is_refused_with_its_name(tmp_path: Path, contents: bytes) -> None:
    state = tmp_path / "drift.json"
    state.write_bytes(contents)
    with pytest.raises(ConfigError, match=r"drift\.json.*move it away"):
        DriftWatch(SETTINGS, state=state)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ('{"schema": 1', "a comma or an end is missing at column 13"),
        ('{"schema": "elle.drift/1", "probes": {"p": null}}', "it holds a value of a wrong kind"),
        ('{"schema": "elle.drift/1", "probes": {"p": {}}}', "it lacks 'last'"),
        ('{"schema": "elle.drift/1", "probes": {"p": {}, "p": {}}}', "key 'p' occurs twice in one object"),
    ],
)
def test_a_damaged_state_is_told_in_words_and_not_in_those_of_python(tmp_path: Path, contents: str, said: str) -> None:
    (tmp_path / "state.json").write_text(contents)
    with pytest.raises(ConfigError) as caught:
        DriftWatch(SETTINGS, state=tmp_path / "state.json")
    assert said in str(caught.value)
    assert f"drift state {tmp_path / 'state.json'} cannot be read" in str(caught.value)
    assert "Error" not in str(caught.value)


def test_a_state_that_cannot_be_written_is_logged_and_the_watch_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch = DriftWatch(SETTINGS, state=tmp_path / "missing" / "drift.json")
    feed(watch, decision(), 1)
    watch.save()
    assert "drift state cannot be written" in caplog.text


def test_a_state_on_a_file_system_that_cannot_be_written_is_logged_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    # Such a file system refuses to remove a file even if there is none.
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    DriftWatch(SETTINGS, state=tmp_path / "drift.json").save()
    assert "drift state cannot be written" in caplog.text
    assert "must be writable: Read-only file system" in caplog.text
