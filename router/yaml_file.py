"""Read YAML files that people wrote, with bounds on their bytes, depth, values and numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from probes.bounded.files import read_bounded, shown
from probes.bounded.text import decode_text, not_there, os_fault
from router.errors import ConfigError

#: The largest policy file, in bytes. A candidate takes about 500.
MOST_BYTES = 1 << 18

#: The deepest nesting (a policy has 6 levels), and the largest number of values when every alias is written out.
MOST_DEPTH, MOST_VALUES = 32, 50_000

#: The largest number of characters of a number. A longer one is slow to read, and no double can hold it.
MOST_DIGITS = 400

_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path, what: str, most_bytes: int = MOST_BYTES) -> Any:
    """Return what a YAML file holds, which may be plain values, lists, and mappings with distinct keys.

    Args:
        path: the file.
        what: what the file is, for messages, such as "policy file".
        most_bytes: the largest size of the file in bytes.

    Raises ConfigError, which names the file, and the line if there is one at fault.
    """
    try:
        text = decode_text(read_bounded(path, most_bytes))
    except FileNotFoundError as error:
        raise ConfigError(f"{what} {path} {not_there(path)}.") from error
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {os_fault(error)}.") from error
    except ValueError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}.") from error
    try:
        return yaml.load(text, Loader=_Bounded)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        # The error is not chained, because its text quotes the line, and that may hold a secret.
        raise ConfigError(f"{what} {path} must be YAML: {_describe(error)}.") from None


def _describe(error: yaml.YAMLError) -> str:
    """Return what is wrong with a YAML text and where, without quoting the text."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{shown(str(problem or 'it cannot be read'), 300)}{place}"


class _Bounded(yaml.SafeLoader):
    """A YAML loader that refuses texts that cost far more than their length, and keys that YAML would drop silently."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        # For each node the number of its values with aliases written out. A node that is still being read is missing.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self._values  # type: ignore[no-untyped-call]
        self._depth += 1
        self._values += 1
        if self._depth > MOST_DEPTH:
            raise _fault(event, f"must be nested at most {MOST_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if (size := self._sizes.get(id(node))) is None:
                raise _fault(event, "an alias must not be inside the value that it names")
            self._values += size
        else:
            self._sizes[id(node)] = self._values - before
        if self._values > MOST_VALUES:
            raise _fault(event, f"must hold at most {MOST_VALUES:,} values, aliases written out")
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _TAGS and node.tag != _MERGE:
            raise _fault(node, f"must hold plain values, got the tag {shown(node.tag)}")
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, AttributeError, LookupError, TypeError) as error:
            raise _fault(node, f"cannot be read as the {node.tag.rpartition(':')[2]} that it seems to be") from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = []
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault(key, "a key must be a scalar")
            keys.append(str(key.value if key.tag == _MERGE else self.construct_object(key)))
        for name, count in Counter(keys).items():
            if count > 1:
                raise _fault(node, f"key {shown(name)!r} occurs twice")
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if node.tag.endswith((":int", ":float")) and len(node.value) > MOST_DIGITS:
            raise _fault(node, f"a number must have at most {MOST_DIGITS} characters, got {len(node.value):,}")
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise _fault(node, "text must be valid Unicode, got a lone surrogate") from None


def _fault(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
