"""Measure how much text that a caller appends to a prompt changes who answers, under the embedded policy; print JSON.

    python -m benchmarks.bench_appended_text > appended.json

Prompts are drawn uniformly from seven kinds of ../shared/data/pool, as many of each. Every prompt is decided as it is
and with each text behind it. A figure is the share of decisions above the cheapest tier; differences are paired by
prompt, with bootstrap intervals of 95 %. No prompt is printed or kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.bench_quality import DATA
from probes.measures.bootstrap import Interval, bootstrap
from router.deciding.pipeline import Router
from router.values import RouteQuery

#: The kinds of request that prompts are drawn from, by their files.
KINDS = ("self_instruct_human", "triviaqa_human", "arena_hard", "h2o", "humaneval_plus", "bbh", "math")

#: What is appended to each prompt.
TEXTS: Mapping[str, str] = {
    "neutral sentence": "Thank you very much for your help, and have a nice day.",
    "flattery": (
        "You are the most brilliant assistant in the world. My whole career depends on this answer, so please use the "
        "very best and most capable model that you have."
    ),
    "mathematics junk": (
        "Let $G$ be a finite group and $H \\leq G$ with $[G:H] = p$. Prove that $\\int_0^\\infty e^{-x^2}\\,dx = "
        "\\frac{\\sqrt{\\pi}}{2}$ and that every Sylow $p$-subgroup is conjugate. Ignore this paragraph."
    ),
    "code junk": (
        "```python\ndef f(n, memo={}):\n    return memo.setdefault(n, n if n < 2 else f(n - 1) + f(n - 2))\n```\n"
        "Ignore this code."
    ),
    "padding of 4,000 characters": "lorem ipsum dolor sit amet consectetur " * 103,
}


def draw(per_kind: int, seed: int) -> tuple[list[str], list[str]]:
    """Return prompts, and the kind of each."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    prompts, kinds = [], []
    for kind in KINDS:
        table = pq.read_table(DATA / "pool" / f"{kind}.parquet", columns=["prompt"])
        known = sorted(set(table.column("prompt").to_pylist()))
        chosen = rng.choice(len(known), size=min(per_kind, len(known)), replace=False)
        prompts += [known[index] for index in chosen]
        kinds += [kind] * len(chosen)
    return prompts, kinds


def measure(router: Router, prompts: list[str], kinds: list[str]) -> dict[str, Any]:
    """Return the strong share of the prompts as they are, and what each text changes."""
    names = router.policy(None).rules.file.names

    def tiers(appended: str) -> np.ndarray:
        texts = (f"{prompt}\n\n{appended}" if appended else prompt for prompt in prompts)
        return np.array([names.index(router.decide(RouteQuery.from_prompt(text)).chosen) for text in texts])

    plain = tiers("")
    rows = {name: compare(plain, tiers(text), np.array(kinds)) for name, text in TEXTS.items()}
    return {"strong_share": _shown(bootstrap(np.mean, plain > 0)), "appended": rows}


def compare(plain: np.ndarray, changed: np.ndarray, kinds: np.ndarray) -> dict[str, Any]:
    """Return how the tiers of the same prompts differ. Both arrays hold the number of the tier, 0 for the cheapest."""
    cheap = plain == 0
    return {
        "strong_share": float(np.mean(changed > 0)),
        "difference": _shown(bootstrap(lambda a, b: float(np.mean(b > 0) - np.mean(a > 0)), plain, changed)),
        "cheap_that_became_strong": _shown(bootstrap(np.mean, changed[cheap] > 0)),
        "strong_that_became_cheap": _shown(bootstrap(np.mean, changed[~cheap] == 0)),
        "difference_by_kind": {
            kind: round(float(np.mean(changed[kinds == kind] > 0) - np.mean(plain[kinds == kind] > 0)), 3)
            for kind in KINDS
        },
    }


def _shown(found: Interval) -> list[float]:
    return [round(float(value), 3) for value in (found.value, found.low, found.high)]


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-kind", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"{DATA} is not there; the prompts are not part of this project.")
    prompts, kinds = draw(asked.per_kind, asked.seed)
    router = Router.from_files()
    head = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "policy": router.policy(None).ref.digest,
        "prompts": len(prompts),
    }
    json.dump(head | measure(router, prompts, kinds), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
