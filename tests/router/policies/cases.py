"""Small asks, rules and judgements for tests of policies, and `decide`, which checks eligibility and chooses."""

from __future__ import annotations

from router.asking.ask import Ask
from router.policies import choice
from router.policies.candidates.candidate import Prices
from router.policies.choice import Choice
from router.policies.eligibility import check_eligibility
from router.policies.policy_file import PolicyFile
from router.policies.rules import Judgement, Rules
from router.values import HeldCandidate, Overrides


def make_ask(text: str = "why?", **changes: object) -> Ask:
    fields: dict[str, object] = {
        "text": text,
        "needs": frozenset(),
        "unknown_parts": (),
        "input_tokens_estimate": 100,
        "max_output_tokens": None,
    }
    return Ask(**(fields | changes))  # type: ignore[arg-type]


def make_rules(
    rule: dict[str, object] | None = None,
    *,
    names: tuple[str, ...] = ("small", "large"),
    prices: tuple[Prices | None, ...] | None = None,
    safe_default: str | None = None,
    max_leverage: float | None = None,
    changes: dict[str, dict[str, object]] | None = None,
    **keys: object,
) -> Rules:
    candidates = [{"name": name, "model": f"openai/{name}", **(changes or {}).get(name, {})} for name in names]
    file = PolicyFile.model_validate(
        {
            "schema": "elle.policy/1",
            "name": "test",
            "probe": "somewhere",
            "candidates": candidates,
            "rule": rule or {"kind": "gain", "thresholds": [0.1] * (len(names) - 1)},
            "safe_default": safe_default or names[-1],
            **keys,
        }
    )
    return Rules(file, prices or (None,) * len(names), max_leverage)


def judged(*risk: float, leverage: float = 0.0) -> Judgement:
    return Judgement(raw=risk, risk=risk, difficulty=sum(risk) / len(risk), leverage=leverage)


def decide(
    rules: Rules,
    ask: Ask,
    overrides: Overrides,
    judgement: Judgement | None,
    *,
    failed: bool = False,
    held: HeldCandidate | None = None,
) -> Choice:
    """Check who may answer, and choose one."""
    eligibility = check_eligibility(rules, ask, overrides)
    return choice.choose(eligibility, judgement, judging_failed=failed, held=held)


def needs_no_scores(rules: Rules, ask: Ask, overrides: Overrides, held: HeldCandidate | None = None) -> bool:
    """Check who may answer, and return whether the choice is certain before any score."""
    return choice.needs_no_scores(check_eligibility(rules, ask, overrides), held)
