"""Where the key of a task is looked for, and which system prompts are one."""

from __future__ import annotations

from typing import Any

import pytest

from probes.tasks.keys import system_prompt_key
from router.asking.task_keys import task_of, task_of_system_prompt
from router.errors import InvalidRequestError
from router.values import RouteQuery

USER = {"role": "user", "content": "Hi!"}


@pytest.mark.parametrize(
    ("given", "headers", "parameters", "expected"),
    [
        ("a", {"x-elle-task": "b"}, {"metadata": {"task": "c"}}, "a"),
        ("", {"X-ELLE-Task": "b"}, {"metadata": {"task": "c"}}, "b"),
        ("", {"x-elle-task": ""}, {"metadata": {"task": "c"}}, "c"),
        ("", {"x-task": "b"}, {"task": "c"}, ""),
        ("", {}, {"metadata": {"task": {"deep": "c"}}}, ""),
        ("", {}, {"metadata": "task"}, ""),
        ("Sortieren für Jürgen 日本", {}, {}, "Sortieren für Jürgen 日本"),
    ],
)
def test_field_then_header_then_metadata(
    given: str, headers: dict[str, str], parameters: dict[str, Any], expected: str
) -> None:
    assert task_of(given, headers, parameters) == expected


@pytest.mark.parametrize("key", ["x" * 257, "é" * 129, "two\nlines", "\x00", "\ud800", "x" * 10_000_000])
@pytest.mark.parametrize("where", ["task", "x-elle-task", "metadata.task"])
def test_a_key_that_cannot_be_one_names_its_place_and_is_not_repeated(key: str, where: str) -> None:
    given, header, metadata = (key if where == place else "" for place in ("task", "x-elle-task", "metadata.task"))
    with pytest.raises(InvalidRequestError, match=f"^{where} must ") as caught:
        task_of(given, {"x-elle-task": header}, {"metadata": {"task": metadata}})
    assert caught.value.field == where
    assert key not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "query",
    [
        RouteQuery([{"role": "system", "content": "Sort mail."}, USER]),
        RouteQuery([{"role": "developer", "content": "Sort mail."}, USER, {"role": "assistant", "content": "Yes."}]),
        RouteQuery([{"role": "system", "content": [{"type": "text", "text": "Sort mail."}]}, USER]),
        RouteQuery([USER], parameters={"system": "Sort mail."}),
        RouteQuery([USER], parameters={"system": [{"type": "text", "text": "Sort mail.", "cache_control": {}}]}),
        RouteQuery([USER], parameters={"instructions": "Sort mail."}),
    ],
)
def test_one_system_prompt_is_one_task_in_every_api(query: RouteQuery) -> None:
    assert task_of_system_prompt(query) == system_prompt_key("Sort mail.")


@pytest.mark.parametrize(
    "query",
    [
        RouteQuery([USER]),
        RouteQuery([{"role": "system", "content": " \n"}, USER]),
        RouteQuery([USER], parameters={"system": None, "instructions": {"text": 7}}),
    ],
)
def test_no_system_prompt_is_no_task(query: RouteQuery) -> None:
    assert task_of_system_prompt(query) == ""
