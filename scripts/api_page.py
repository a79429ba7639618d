"""Write docs/reference/api.md: the public classes and functions for people who program, out of their docstrings."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator

#: What people who program import; every other module may change without a word.
MODULES = (
    "router.client",
    "router.decision",
    "router.values",
    "router.deciding.pipeline",
    "router.answering.dispatch",
    "router.feedback.pieces",
    "router.gateways.litellm_plugin",
    "router.gateways.litellm_feedback",
    "router.collecting.collect",
    "router.collecting.sampling",
    "router.collecting.values",
    "router.collecting.graders.base",
    "router.collecting.graders.naming",
    "probes.probe",
    "probes.artifacts.store",
    "probes.regression.ridge",
    "probes.embeddings.scoring",
    "probes.embeddings.selection",
)


def api_page() -> Iterator[str]:
    """Yield the lines of the page."""
    yield "The package is typed (`py.typed`), so types are left out here. The docstring in the source says more, such"
    yield "as what a function raises. What is not on this page may change without a word."
    for name in MODULES:
        module = importlib.import_module(name)
        yield from ("", f"## {name}", "", _first(module))
        for found in _public(module):
            kind = "class " if inspect.isclass(found) else ""
            yield from ("", f"### {kind}{found.__name__}", "", _code(found), "", _first(found))
            if inspect.isclass(found):
                yield from _members(found)


def _public(module: object) -> list[type]:
    """Return the public classes and functions that a module offers, in the order of their text.

    These are the names in `__all__`, or else those that the module defines itself.
    """
    offered = getattr(module, "__all__", None)
    found = [
        one
        for name, one in vars(module).items()
        if (inspect.isclass(one) or inspect.isfunction(one))
        and (name in offered if offered else not name.startswith("_") and one.__module__ == module.__name__)  # type: ignore[attr-defined]
    ]
    return sorted(found, key=lambda one: (one.__module__, inspect.getsourcelines(one)[1]))


def _members(owner: type) -> Iterator[str]:
    rows = []
    for name, member in vars(owner).items():
        function = getattr(member, "__func__", member)
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(member, property)):
            signature = "" if isinstance(member, property) else _signature(function)
            # A field whose default is a function has no text of its own.
            if meaning := _first(member).replace("|", "\\|"):
                rows.append(f"| `{name}{signature}` | {meaning} |")
    if rows:
        yield from ("", "| member | what it does |", "|---|---|", *rows)


def _code(found: type) -> str:
    if inspect.isclass(found) and issubclass(found, enum.Enum):
        return ", ".join(f"`{name}`" for name in found.__members__)
    return f"`{found.__name__}{_signature(found)}`"


def _signature(function: object) -> str:
    """Return the names of the parameters with their defaults, without types, which are in the source."""
    try:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    words, keyword_only = [], False
    for one in parameters:
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            words.append("*")
            keyword_only = True
        star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        keyword_only = keyword_only or one.kind is one.VAR_POSITIONAL
        plain = one.default is None or isinstance(one.default, bool | int | float | str)
        default = "" if one.default is one.empty else f"={one.default!r}" if plain else "=..."
        words.append(f"{star}{one.name}{default}")
    return f"({', '.join(words)})"


def _first(found: object) -> str:
    """Return the first paragraph of a docstring, in one line."""
    text = inspect.getdoc(found) or ""
    return re.sub(r"\s+", " ", text.partition("\n\n")[0]).strip()
