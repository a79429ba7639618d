"""Make a grader from its name and parameters, as in `number:tolerance=0.01` (`grader_named`)."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import typing
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from router.collecting.graders.base import Grader, GraderError
from router.quoting import did_you_mean, quoted

#: The group of entry points under which other packages offer graders; each one is a subclass of `Grader`.
ENTRY_POINTS = "elle_router.graders"

#: Where the class of each grader of ours is. A file is imported only if its grader is asked for.
OURS: Mapping[str, str] = {
    "agreement": "judges.agreement:Agreement",
    "choice": "gold.choice:MultipleChoice",
    "contains": "gold.contains:Contains",
    "exact": "gold.exact:Exact",
    "feedback": "signals.feedback:FeedbackGrader",
    "json_schema": "gold.json_schema:JsonSchema",
    "judge": "judges.judge:Judge",
    "logprob": "signals.logprob:TokenLoss",
    "number": "gold.number:Number",
    "reference": "judges.reference:ReferenceJudge",
    "tests": "running.code_tests:CodeTests",
    "regex": "gold.regex:Regex",
}

_MOST_CHARACTERS = 10_000
#: A comma separates parameters only in front of the name of the next one, so that a pattern may hold commas.
_NEXT_PARAMETER = re.compile(r",\s*(?=[A-Za-z_]\w*=)")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def grader_names() -> tuple[str, ...]:
    """Return the names of all graders, ours and those of installed packages, sorted."""
    return tuple(sorted({*OURS, *_foreign()}))


def grader_named(spec: str) -> Grader:
    """Return the grader that a text describes: a name, and after a colon its parameters, separated by commas.

    Examples: `exact`, `exact:case=true`, `number:tolerance=0.01`, `judge:model=gpt-5,reference=strong`. A value that
    holds a comma and a name with "=" behind it is written as a JSON string.

    Raises GraderError, which names the nearest name or parameter, and for a value that the grader does not take.
    """
    if len(spec) > _MOST_CHARACTERS:
        raise GraderError(f"a grader must be named in at most {_MOST_CHARACTERS:,} characters, got {len(spec):,}.")
    name, _, rest = spec.partition(":")
    name = name.strip()
    made = _class_of(name)
    given = _split(name, rest)
    types = _parameter_types(made)
    if types is not None and (unknown := [key for key in given if key not in types]):
        found = ", ".join(types) or "none"
        raise GraderError(
            f"the grader {name} has no parameter {quoted(unknown[0])}.{_nearest(unknown[0], types)} It has: {found}."
        )
    values = {key: _converted(name, key, text, (types or {}).get(key, str)) for key, text in given.items()}
    try:
        return made(**values)
    except TypeError as error:
        raise GraderError(f"the grader {name} cannot be made from {quoted(spec)}: {error}.") from error


def _class_of(name: str) -> type[Grader]:
    foreign = _foreign()
    if name in OURS:
        module, _, attribute = OURS[name].partition(":")
        found = getattr(importlib.import_module(f"router.collecting.graders.{module}"), attribute)
    elif name in foreign:
        found = foreign[name].load()
    else:
        names = grader_names()
        raise GraderError(f"there is no grader {quoted(name)}.{_nearest(name, names)} There are: {', '.join(names)}.")
    if not (isinstance(found, type) and issubclass(found, Grader)):
        raise GraderError(f"the entry point {quoted(name)} of {ENTRY_POINTS} must be a subclass of Grader.")
    return found


def _foreign() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _nearest(name: str, names: typing.Iterable[str]) -> str:
    return did_you_mean(name.lower(), names, cutoff=0.5)


def _split(name: str, text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = text.strip()
    while rest:
        key, sign, value = rest.partition("=")
        key = key.strip()
        if not sign or not key.isidentifier():
            raise GraderError(f"after `{name}:` write parameters as name=value, got {quoted(rest)}.")
        if key in given:
            raise GraderError(f"the grader {name} must get {key} once, got it twice.")
        given[key], rest = _value_and_rest(value)
    return given


def _value_and_rest(text: str) -> tuple[str, str]:
    """Return the first value of a text, which may be a JSON string, and what follows behind its comma."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            value, end = json.JSONDecoder().raw_decode(text)
            if text[end : end + 1] in {"", ","}:
                return value, text[end + 1 :]
    value, *rest = _NEXT_PARAMETER.split(text, maxsplit=1)
    return value, "".join(rest)


def _parameter_types(made: type[Grader]) -> dict[str, Any] | None:
    """Return the types of the parameters of a dataclass, or None for a class that reads its parameters itself."""
    fields = getattr(made, "__dataclass_fields__", None)
    hints = typing.get_type_hints(made)
    return None if fields is None else {name: hints[name] for name, field in fields.items() if field.init}


def _converted(name: str, key: str, text: str, kind: Any) -> Any:
    kinds = {kind, *typing.get_args(kind)}
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds:
        if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        raise GraderError(f"{key} of the grader {name} must be true or false, got {quoted(text)}.")
    if kinds & {int, float}:
        try:
            number = float(text) if float in kinds else int(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            what = "a number" if float in kinds else "a whole number"
            raise GraderError(f"{key} of the grader {name} must be {what}, got {quoted(text)}.")
        return number
    return text
