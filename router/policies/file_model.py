"""Define the base model of everything in a policy file (`StrictModel`), and the field types that its parts share."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probes.bounded.files import shown

#: Names of policies, profiles and candidates. They hold no colon, because `NAME:PROFILE` names a profile of a policy.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
#: A region tag such as `eu`, `eu-west-1` or `on-premises`. Two tags are the same if all their characters are.
Region = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
#: A name of a model as clients write it, such as `claude-haiku-*` or `gpt-4o-mini`, with at most three `*`.
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@-]{0,200}(\*[A-Za-z0-9._:/@-]{0,200}){0,3}$", min_length=1)]
#: A name of a parameter of a request, such as `temperature`.
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Probability = Annotated[float, Field(ge=0, le=1)]

_MAX_SHOWN_FAULTS = 20
#: What to say of a value of a wrong kind, by pydantic's type of the fault: its own words are those of programmers.
_KINDS = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
#: What to say of a key, by pydantic's type of the fault, where pydantic's own words are too short.
_WORDS = {"extra_forbidden": "unknown key; remove it or correct its spelling", "missing": "must be set"}


class StrictModel(BaseModel):
    """The base of every part of a policy file: it is frozen and refuses unknown keys.

    It refuses keys that it does not know, and numbers that are not finite.
    """

    # Errors hide their input: people write keys where the name of the key's variable belongs, and errors end in logs.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def faults_text(error: ValidationError, whole: type[BaseModel], hidden: Collection[tuple[str, ...]]) -> str:
    """Return a line for each fault of a file: the key, what it must be, and what it is unless its key is `hidden`.

    whole: the model of the whole file, in which the key is looked up that an unknown one may stand for.
    """
    lines: list[str] = []
    problems = error.errors(include_url=False)
    # A list does not count its parts that are at fault, so that it seems too short as well.
    at_fault = {problem["loc"][:n] for problem in problems for n in range(len(problem["loc"]))}
    problems = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in at_fault]
    for problem in problems[:_MAX_SHOWN_FAULTS]:
        keys = [str(part) for part in problem["loc"] if not _is_alternative(part)]
        place = ".".join("null" if key == "None" else shown(key) for key in keys) or "(whole file)"
        if words := _WORDS.get(problem["type"]):
            hint = _hint(whole, problem["loc"]) if problem["type"] == "extra_forbidden" else ""
            lines.append(f"  {place}: {words}{hint}")
            continue
        if problem["type"] == "union_tag_invalid":
            context = problem["ctx"]
            key, tag = context["discriminator"].strip("'"), shown(str(context["tag"]))
            got = "null" if tag == "None" else repr(tag)
            lines.append(f"  {place}.{key}: must be one of {context['expected_tags']}, got {got}")
            continue
        given = problem.get("input") if problem["loc"][-1:] not in hidden else ...
        said = json.dumps(given) if given is None or isinstance(given, bool) else shown(repr(given))
        got = f", got {said}" if isinstance(given, str | int | float) or given is None else ""
        wanted = _KINDS.get(problem["type"]) or shown(problem["msg"].removeprefix("Value error, "), 600)
        lines.append(f"  {place}: {wanted}{got}")
    if len(problems) > _MAX_SHOWN_FAULTS:
        lines.append(f"  and {len(problems) - _MAX_SHOWN_FAULTS:,} more")
    return "\n".join(lines)


def _is_alternative(part: int | str) -> bool:
    """Return whether a part of a place is no key of the file, but pydantic's word for one of several forms of a value.

    Such words are `literal['litellm']`, and the name of the class `Prices`.
    """
    return str(part).startswith("literal[") or part in {one.__name__ for one in StrictModel.__subclasses__()}


def _hint(whole: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Return which known key an unknown one at a place in a file may stand for, in words; empty if none is like it."""
    models = [whole]
    for part in loc[:-1]:
        # Places also hold indices, names that the author chose, and tags of unions: they lead to no other model.
        inner = [one for model in models for one in _models_in(_annotation(model, part))]
        models = inner or models
    known = [field.alias or name for model in models for name, field in model.model_fields.items()]
    if meant := difflib.get_close_matches(str(loc[-1])[:100], known, n=1):
        return f"; did you mean `{meant[0]}`?"
    return "; write a field of the provider's own under `extra_body`" if "extra_body" in known else ""


def _annotation(model: type[BaseModel], key: int | str) -> Any:
    return next((field.annotation for name, field in model.model_fields.items() if key in {name, field.alias}), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation is made of, such as `Candidate` of a tuple of candidates."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
