from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.gold import json_schema, patterns
from router.collecting.graders.naming import grader_named
from tests.router.collecting.graders.grading import score, verdict

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


async def valid(text: str, schema: Any) -> float | None:
    return await score("json_schema", text, reference=json.dumps(schema))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('Here it is:\n```json\n{"name": "Ada"}\n```\n', 1),
        ('```\n{"name": "Ada"}\n```', 1),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"age": 36}', 0),
        ('{"name": "Ada", "x": 1}', 0),
        ('{"name": "Ada"} and more', 0),
        ('```json\n{"name": "A"}\n```\n```json\n{"name": "B"}\n```', 0),
        ('{"name": NaN}', 0),
        ("null", 0),
    ],
)
async def test_the_answer_must_be_json_that_the_schema_allows(text: str, expected: float) -> None:
    assert await valid(text, PERSON) == expected


async def test_strict_allows_nothing_around_the_json(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(PERSON))
    assert await score(f"json_schema:schema={path}", '```\n{"name": "Ada"}\n```') == 1
    assert await score(f"json_schema:schema={path},strict=true", '```\n{"name": "Ada"}\n```') == 0
    assert await score(f"json_schema:schema={path},strict=true", ' {"name": "Ada"}\n') == 1


async def test_the_version_follows_what_the_file_holds(tmp_path: Path) -> None:
    versions = set()
    for name, schema in (("a", {}), ("b", {}), ("c", PERSON)):
        (tmp_path / name).write_text(json.dumps(schema))
        versions.add(grader_named(f"json_schema:schema={tmp_path / name}").version)
    assert len(versions) == 2


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"uniqueItems": True}, "[1, true, 1.5, [1]]", "[1, 1.0]"),
        ({"pattern": "^a+$"}, '"aa"', '"ab"'),
        ({"patternProperties": {"^n": {"type": "number"}}}, '{"n1": 2, "x": "y"}', '{"n1": "2"}'),
        ({"patternProperties": {"^n": {}}, "additionalProperties": False}, '{"n1": 2}', '{"m1": 2}'),
        ({"additionalProperties": {"type": "number"}}, '{"a": 2}', '{"a": "2"}'),
        ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "[[[]]]", "[[1]]"),
    ],
)
async def test_keywords_of_our_own_do_what_the_standard_says(schema: Any, good: str, bad: str) -> None:
    assert (await valid(good, schema), await valid(bad, schema)) == (1, 0)


async def test_catastrophic_patterns_and_long_lists_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SEARCH_S", 0.2)
    monkeypatch.setattr(json_schema, "VALIDATE_S", 0.5)
    slow = "^(a|aa|b?a)+$"
    assert await valid(json.dumps("a" * 5_000 + "!"), {"pattern": slow}) is None
    assert await valid(json.dumps({"a" * 5_000 + "!": 1}), {"patternProperties": {slow: {}}}) is None
    both = {"patternProperties": {slow: {}}, "additionalProperties": False}
    assert await valid(json.dumps({"a" * 5_000 + "!": 1}), both) is None
    mixed = [item for index in range(15_000) for item in (index, str(index))]
    assert await valid(json.dumps(mixed, separators=(",", ":")), {"uniqueItems": True}) == 1
    tangled = {"$defs": {"a": {"anyOf": [{"items": {"$ref": "#/$defs/a"}, "minItems": 1}] * 9}}, "$ref": "#/$defs/a"}
    assert await valid("[" * 30 + "]" * 30, tangled) is None


async def test_documents_elsewhere_are_not_fetched() -> None:
    found = await verdict("json_schema", "{}", reference='{"$ref": "http://127.0.0.1:9/schema.json"}')
    assert (found.score, found.detail["found"]) == (0.0, "$ref to another document")


async def test_a_detail_holds_nothing_of_the_answer() -> None:
    found = await verdict("json_schema", '{"name": "Ada", "my secret": 1}', reference=json.dumps(PERSON))
    assert found.detail["found"] == "additionalProperties at #/additionalProperties"


@pytest.mark.parametrize("schema", ["", "nonsense", '{"type": "objekt"}', "{" * 5_000, '{"unevaluatedProperties": 1}'])
async def test_a_broken_schema_gives_no_score_and_is_refused_as_a_file(schema: str, tmp_path: Path) -> None:
    assert await score("json_schema", "{}", reference=schema) is None
    (tmp_path / "schema.json").write_text(schema)
    with pytest.raises(GraderError, match=r"schema\.json"):
        grader_named(f"json_schema:schema={tmp_path / 'schema.json'}")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(GraderError, match=r"nowhere\.json.*cannot be read"):
        grader_named("json_schema:schema=nowhere.json")
