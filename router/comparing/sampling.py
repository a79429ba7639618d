"""Draw requests from a ledger for `elle collect`, which asks every candidate the same (`sampled_prompts`)."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from router.errors import ConfigError

if TYPE_CHECKING:
    from router.ledger.reader import LoggedDecision


def sampled_prompts(decisions: Iterable[LoggedDecision], n: int, *, seed: int = 0) -> list[dict[str, str]]:
    """Return n distinct prompts, drawn uniformly from the decided requests in one pass and in bounded memory.

    A prompt that came often is drawn as often as one that came once. Each row has the prompt and, as `prompt_id`, the
    id of its first decision.

    Raises ConfigError if the ledger keeps no prompts.
    """
    chance = random.Random(seed)  # noqa: S311  (a sample is no secret)
    drawn: list[dict[str, str]] = []
    seen: set[str] = set()
    n_prompts = n_decisions = 0
    for decision in decisions:
        n_decisions += 1
        prompt, digest = decision.values["prompt"], decision.values["prompt_digest"]
        if not prompt or digest in seen:
            continue
        seen.add(digest)
        n_prompts += 1
        row = {"prompt": prompt, "prompt_id": decision.decision_id}
        if len(drawn) < n:
            drawn.append(row)
        elif (place := chance.randrange(n_prompts)) < n:
            drawn[place] = row
    if not n_decisions:
        raise ConfigError("the ledger has no such decisions; look at `elle ledger stats`, --policy and --since.")
    if not drawn:
        raise ConfigError(
            f"none of the {n_decisions:,} decisions has the text of its prompt; a service keeps it with "
            "--ledger-prompts."
        )
    return sorted(drawn, key=lambda one: one["prompt_id"])
