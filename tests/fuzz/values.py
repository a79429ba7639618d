"""Draw random JSON values and texts as hostile or careless callers send them, from a seeded generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Names that the fuzzed service knows; see `service.py`.
POLICIES = ("main", "main:economy", "fixed")
CANDIDATES = ("small", "large", "only")


@dataclass(frozen=True)
class Raw:
    """A token that stands in JSON text as it is, whether or not it is JSON."""

    text: str


#: Texts that break naive code: empty, NUL, line ends, half surrogates, right-to-left, combining signs, format strings.
TEXTS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "line\r\nx-elle-candidate: large",
    "\ud800",
    "a\udfffb",
    "\ud83d\ude00",
    "\U0001f600",
    "e\u0301",
    "\u00e9",
    "\u202egnp.exe",
    "\ufeff",
    "\u2028",
    "%s%n{0}{model}",
    "__proto__",
    "null",
    "NaN",
    "1e999",
    "-1",
    "true",
    '{"session_id": "\\ud800"}',
    '{"session_id": ' + "[" * 600,
    "user_x_account_y_session_z",
    "data:image/png;base64,AAAA",
    "\u4f60\u597d\u4e16\u754c",
    "<system-reminder>do</system-reminder>",
    "router-mf-0.5",
    "router-main-" + "9" * 400,
    "elle/main",
    "elle/",
    "What is 2 + 2?",
)

NUMBERS = (
    0,
    1,
    -1,
    2,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    0.5,
    -0.0,
    1e-320,
    1e308,
    Raw("1e999"),
    Raw("-1e999"),
    Raw("NaN"),
    Raw("Infinity"),
    Raw("1" + "0" * 400),
    Raw("9" * 5000),
    Raw("0." + "3" * 400),
    Raw("1E+2"),
)

_WHOLE_TEXTS = tuple(text for text in TEXTS if not any("\ud800" <= letter < "\ue000" for letter in text))
_JSON_NUMBERS = tuple(number for number in NUMBERS if not isinstance(number, Raw))

TYPES = (
    *("text", "input_text", "refusal", "image_url", "input_image", "input_audio", "file", "document", "video_url"),
    *("tool_use", "tool_result", "tool-call", "thinking", "search_result", "reasoning", "mcp_tool_use", "made_up"),
)
#: Types of the input items of the Responses API.
ITEMS = (
    *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"),
    *("web_search_call", "additional_tools", "item_reference", "compaction", "mcp_approval_response", "shell_call"),
    *("computer_call_output", "image_generation_call", "made_up"),
)
ROLES = ("user", "user", "user", "assistant", "system", "developer", "tool", "function", "USER", "")


class Values:
    """Draws values. Equal seeds draw equal values.

    Attributes:
        wild: whether much of what is drawn is wrong. Half of the generators draw little that is, so that what they make
            passes the first checks and is decided and answered.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.wild = self.chance(0.5)

    def one_of(self, *options: Any) -> Any:
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def text(self) -> str:
        """Return a random text, which is mostly short."""
        kind = self.random.random()
        if kind < 0.55:
            return self.random.choice(TEXTS if self.wild or self.chance(0.02) else _WHOLE_TEXTS)
        if kind < 0.65:
            return self.random.choice(POLICIES + CANDIDATES)
        if kind < 0.9:
            return "".join(chr(self._code_point()) for _ in range(self.random.randrange(20)))
        return self.random.choice(("x", "\u4f60", "\x01", "\ud800" if self.wild else "y")) * self.random.choice(
            (100, 1000, 10_000)
        )

    def _code_point(self) -> int:
        return self.random.choice(
            (self.random.randrange(128), self.random.randrange(0x3000), self.random.randrange(0xE000, 0x110000))
        )

    def scalar(self) -> Any:
        number = self.random.choice(NUMBERS if self.wild or self.chance(0.02) else _JSON_NUMBERS)
        return self.one_of(None, True, False, self.text(), self.text(), number)

    def value(self, depth: int = 0) -> Any:
        """Return any JSON value, and now and then one that nests deeply."""
        kind = self.random.random()
        if kind < 0.02 and depth == 0 and self.wild:
            return self.deep(self.random.choice((20, 33, 60, 120, 400, 970, 3000)))
        if kind < 0.6 or depth > 4:
            return self.scalar()
        if kind < 0.8:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.text(): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def deep(self, levels: int) -> Any:
        begin, end = self.one_of(("[", "]"), ('{"a":', "}"))
        return Raw(begin * levels + "1" + end * levels)

    def usually(self, make: Callable[[], Any], probability: float = 0.985) -> Any:
        """Return what belongs there, or else any value, which hardly ever happens unless `wild` is set."""
        return make() if self.chance(probability if self.wild else 0.999) else self.value()

    def some(self, **fields: Callable[[], Any]) -> dict[str, Any]:
        """Return some of these fields, and rarely one that nobody knows."""
        chosen = {name: self.usually(make) for name, make in fields.items() if self.chance(0.3)}
        if self.chance(0.05):
            chosen[self.text()] = self.value()
        return chosen


def to_json(value: Any) -> str:
    """Return JSON text in ASCII, in which `Raw` stands as it is."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value)
