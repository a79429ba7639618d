"""Say when an upstream refuses a request, for tests of clients that repeat their requests by themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Unsteady:
    """Counts the requests for each model, and refuses some.

    The model `flaky` refuses every other request, the first one too, and asks for a short wait. The model `down`
    refuses all. Whatever stands before a hyphen in a name does not count.
    """

    asked: Counter[str] = field(default_factory=Counter)

    def refusal(self, model: str) -> tuple[int, dict[str, str]] | None:
        """Return the status and the headers of a refusal, or None if the upstream answers."""
        kind = model.rpartition("-")[2]
        self.asked[kind] += 1
        if kind == "down":
            return 503, {}
        return (429, {"retry-after": "0.1"}) if kind == "flaky" and self.asked[kind] % 2 else None
