"""Grade by whether the answer is JSON that a JSON schema allows (`JsonSchema`)."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from probes.bounded.files import read_bounded, shown
from probes.bounded.json_keys import EachKeyOnce
from probes.bounded.text import os_fault
from router.collecting.graders.base import MAX_READ_CHARACTERS, NO_NEEDS, Grader, GraderError, GradingContext, Needs
from router.collecting.graders.gold.patterns import PatternFaultError, compiled, found
from router.collecting.values import ModelAnswer, Sample, Verdict
from router.plain_json import NotPlainJsonError, loads, with_leaves
from router.quoting import quoted

#: Seconds after which a validation is given up.
VALIDATE_S = 2.0

_MAX_SCHEMA_BYTES = 1_000_000
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)\n?```", re.DOTALL)


class _TooLongError(Exception):
    """The validation took longer than VALIDATE_S."""


@dataclass(frozen=True)
class JsonSchema(Grader):
    """Validates the answer against a JSON schema: 1 if it is JSON that the schema allows, and 0 otherwise.

    The JSON may stand in a code fence. References to other documents are not followed, and `format` is not checked.

    Attributes:
        schema: a file that holds the schema; by default the sample's reference is the schema.
        strict: whether nothing may stand around the JSON.

    Raises GraderError if the file cannot be read or is no schema.
    """

    name: ClassVar[str] = "json_schema"
    column: ClassVar[str] = "reference"

    schema: str = ""
    strict: bool = False
    _text: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if self.schema:
            object.__setattr__(self, "_text", _schema_file(Path(self.schema)))
            if fault := _fault_of_schema(self._text):
                raise GraderError(f"{shown(self.schema, 400)} is no JSON schema: {fault}.")

    @property
    def needs(self) -> Needs:
        """Return the column `reference`, unless the grader has a schema of its own."""
        return NO_NEEDS if self.schema else super().needs

    def parameters(self) -> dict[str, Any]:
        """Return the parameters, with what the file of the schema holds in place of its name."""
        return {"schema": self._text, "strict": self.strict}

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return 1 or 0; see the class."""
        schema = self._text or sample.reference
        if not schema:
            return self.no_verdict("the sample has no reference, and the grader no schema")
        if fault := _fault_of_schema(schema):
            return self.no_verdict(f"the schema cannot be used: {fault}")
        if len(answer.text) > MAX_READ_CHARACTERS:
            return self.no_verdict(f"the answer has more than {MAX_READ_CHARACTERS:,} characters")
        try:
            value = _json_in(answer.text, strict=self.strict)
        except NotPlainJsonError as error:
            return self.verdict(0.0, found=f"no JSON: {error}")
        try:
            fault = await asyncio.to_thread(_fault_of_value, schema, value)
        except (_TooLongError, PatternFaultError, RecursionError) as error:
            return self.no_verdict(f"the answer cannot be validated in time: {type(error).__name__}")
        return self.verdict(float(not fault), found=fault or "valid")


def _schema_file(path: Path) -> str:
    try:
        return read_bounded(path, _MAX_SCHEMA_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise GraderError(f"the schema {quoted(str(path))} cannot be read: {os_fault(error)}.") from error


def _json_in(text: str, *, strict: bool) -> Any:
    """Return the JSON value of an answer: the whole text, or else the only code fence in it."""
    try:
        return loads(text)
    except NotPlainJsonError:
        fences = [] if strict else _FENCE.findall(text)
        if len(fences) != 1:
            raise
        return loads(fences[0])


@lru_cache(maxsize=256)
def _fault_of_schema(schema: str) -> str:
    """Return what is wrong with a schema, or an empty text."""
    jsonschema = _library()
    try:
        value = loads(schema, EachKeyOnce)
        # Without a default, an unknown `$schema` means the newest draft.
        jsonschema.validators.validator_for(value, default=jsonschema.Draft202012Validator).check_schema(value)
    except NotPlainJsonError as error:
        return f"it is no JSON that every reader takes alike, {error}"
    except jsonschema.SchemaError as error:
        return f"{error.json_path}: {error.validator} is broken"
    except RecursionError:
        return "it nests too deeply"
    if '"unevaluatedProperties"' in schema and '"patternProperties"' in schema:
        # The library matches these patterns itself, without a bound on the time.
        return "it has unevaluatedProperties beside patternProperties"
    return ""


def _fault_of_value(schema: str, value: Any) -> str:
    """Return the keyword that a value breaks first, with its place in the schema, or an empty text."""
    jsonschema, registry = _library(), importlib.import_module("referencing").Registry()
    parsed = json.loads(schema)
    plain = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
    end = time.monotonic() + VALIDATE_S
    keywords = {name: _timed(_OWN.get(name, check), end) for name, check in plain.VALIDATORS.items()}
    # A registry of our own keeps the library from fetching `$ref` over the network.
    validator = jsonschema.validators.extend(plain, keywords)(parsed, registry=registry)
    try:
        error = next(validator.iter_errors(value), None)
    except importlib.import_module("referencing.exceptions").Unresolvable:
        return "$ref to another document"
    return "" if error is None else f"{error.validator} at {_place(error)}"


def _place(error: Any) -> str:
    # Names of the answer's own properties would bring its text into the report.
    return "/".join(["#", *map(str, error.absolute_schema_path)])[:200]


def _library() -> Any:
    try:
        return importlib.import_module("jsonschema")
    except ImportError as error:
        raise GraderError(
            "the grader json_schema needs the library jsonschema; install it with `pip install 'elle-router[collect]'`."
        ) from error


_Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def _timed(check: _Check, end: float) -> _Check:
    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if time.monotonic() > end:
            raise _TooLongError
        yield from check(validator, value, instance, schema) or ()

    return checked


def _error(message: str) -> Any:
    return _library().ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not found(compiled(pattern), instance):
        yield _error("the text does not match")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    for pattern, below in patterns.items() if isinstance(instance, dict) else ():
        for name, value in instance.items():
            if found(compiled(pattern), name):
                yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, below: Any, instance: Any, schema: Any) -> Iterator[Any]:
    known, patterns = schema.get("properties", {}), [compiled(text) for text in schema.get("patternProperties", {})]
    for name, value in instance.items() if isinstance(instance, dict) else ():
        if name in known or any(found(pattern, name) for pattern in patterns):
            continue
        if below is False:
            yield _error("a property is not in the schema")
        else:
            yield from validator.descend(value, below, path=name)


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Any]:
    # The library compares each pair of items if they cannot be sorted, which takes minutes for a long list.
    if unique and isinstance(instance, list):
        written = {json.dumps(with_leaves(item, _whole_as_integer), sort_keys=True) for item in instance}
        if len(written) < len(instance):
            yield _error("items repeat")


def _whole_as_integer(value: Any) -> Any:
    # So that 1.0 and 1 are written alike.
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: Keywords that the library checks without a bound on the time.
_OWN: Mapping[str, _Check] = {
    "additionalProperties": _additional_properties,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "uniqueItems": _unique_items,
}
