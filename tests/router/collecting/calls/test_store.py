"""The store charges what may have been paid, and repeats a key only while the call under it may have been answered."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from router.collecting.calls.store import StoreError, digest, open_store
from router.collecting.values import ModelAnswer, Verdict

ANSWER = ModelAnswer("tiny", "Grüße", "stop", 3, 5, 0.25, 0.5)


def test_answers_and_verdicts_come_back_as_they_were_under_the_name_that_is_asked_for(tmp_path: Path) -> None:
    verdict = Verdict(0.5, "judge", "v1", detail={"first": "A", "longer": True})
    with open_store(tmp_path / "s.sqlite") as store:
        store.answered(store.begin("k", "mine", 1.0), "k", ANSWER, 0.25)
        store.add_verdict("v", verdict)
    with open_store(tmp_path / "s.sqlite") as store:
        assert store.answer("k", "small") == ModelAnswer("small", "Grüße", "stop", 3, 5, 0.25, 0.5)
        assert store.verdict("v") == verdict
        assert store.answer("other", "tiny") is None
        assert store.verdict("other") is None
        assert store.spent("mine") == (0.25, 1)
        assert store.spent("yours") == (0.0, 0)


def test_a_call_in_flight_at_the_end_stays_charged_and_is_sent_again_under_its_key(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite") as store:
        first = store.begin("k", "mine", 1.0)
        assert store.spent("mine") == (1.0, 1)
    with open_store(tmp_path / "s.sqlite") as store:
        assert store.spent("mine") == (1.0, 1)
        again = store.begin("k", "mine", 1.0)
        assert again.idempotency_key == first.idempotency_key
        store.answered(again, "k", ANSWER, 0.25)
        assert store.spent("mine") == (1.25, 2)


@pytest.mark.parametrize(
    ("state", "spent", "same_key"),
    [("refused", (0.0, 0), True), ("failed", (0.0, 0), False), ("unknown", (1.0, 1), True)],
)
def test_only_a_certain_failure_gives_the_next_attempt_another_key(
    tmp_path: Path, state: str, spent: tuple[float, int], same_key: bool
) -> None:
    with open_store(tmp_path / "s.sqlite") as store:
        first = store.begin("k", "mine", 1.0)
        store.ended(first, state, spent[0])  # type: ignore[arg-type]
        assert store.spent("mine") == spent
        assert (store.begin("k", "mine", 1.0).idempotency_key == first.idempotency_key) is same_key


def test_a_call_that_was_not_sent_after_all_leaves_no_trace(tmp_path: Path) -> None:
    with open_store(tmp_path / "s.sqlite") as store:
        store.forget(store.begin("k", "mine", 1.0))
        assert store.spent("mine") == (0.0, 0)


def test_a_store_of_another_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store._connection.execute("PRAGMA user_version = 7")
    for _ in range(2):
        with pytest.raises(StoreError, match="it has format 7, and this program reads format 1"):
            open_store(path).__enter__()


def test_digests_do_not_depend_on_the_order_of_fields() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize(
    ("table", "edit"),
    [
        ("answers", "UPDATE answers SET cost_usd = 'cheap'"),
        ("answers", "UPDATE answers SET text = x'00'"),
        ("verdicts", "UPDATE verdicts SET score = 'good'"),
        ("verdicts", "UPDATE verdicts SET score = 7"),
        ("verdicts", "UPDATE verdicts SET detail = '{'"),
        ("verdicts", "UPDATE verdicts SET detail = '[1]'"),
    ],
)
def test_a_store_that_something_else_edited_is_named_with_what_to_do(tmp_path: Path, table: str, edit: str) -> None:
    path = tmp_path / "s.sqlite"
    with open_store(path) as store:
        store.answered(store.begin("k", "mine", 1.0), "k", ANSWER, 0.25)
        store.add_verdict("k", Verdict(0.5, "judge", "v1"))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(edit)
    with open_store(path) as store, pytest.raises(StoreError, match=f"its table {table} holds a value") as caught:
        (store.verdict("k"), store.answer("k", "tiny"))
    assert "give another --store FILE" in str(caught.value)
