"""Compare what a decision is expected to cost with what always asking one tier would cost (`CostComparison`)."""

from __future__ import annotations

from dataclasses import dataclass

from router.decision import CandidateRisk
from router.policies.eligibility import Eligibility, warm_cost_usd
from router.values import HeldCandidate


@dataclass(frozen=True, slots=True)
class CostComparison:
    """Holds the expected cost of one answer in USD: as decided, and if one tier always answered.

    All costs are at the prices of the policy, at the estimated input tokens of the request and at the expected output
    tokens of each candidate. A session that stays with its candidate reads its old input from the provider's prompt
    cache, if the policy states a price for that. Whoever always asks one tier never leaves its cache.

    Attributes:
        chosen_usd: the cost of the candidate that was chosen. It pays for all input anew if the session is moved to it.
        weak_usd: the cost if the first tier of the policy answered every request.
        strong_usd: the cost if the last tier of the policy answered every request.
        cold_cache_usd: the part of `chosen_usd` that is paid because the session was moved; 0 if it was not.
    """

    chosen_usd: float
    weak_usd: float
    strong_usd: float
    cold_cache_usd: float


def compare_costs(
    eligibility: Eligibility, candidates: tuple[CandidateRisk, ...], chosen: str, held: HeldCandidate | None
) -> CostComparison | None:
    """Return the comparison for a decision, or None if the price of a candidate in it is unknown.

    Args:
        eligibility: the request and the rules that decided it.
        candidates: the candidates of the decision record.
        chosen: the name of the candidate that was chosen.
        held: the candidate that answered the session last; None without a session or for a new one.
    """
    rules, names = eligibility.rules, eligibility.rules.names
    compared = {name: names.index(name) for name in (chosen, names[0], names[-1])}
    cold = {name: candidates[index].expected_cost_usd for name, index in compared.items()}
    warm = cold
    if held is not None:
        warm = {name: warm_cost_usd(rules, index, eligibility.ask, held) for name, index in compared.items()}
    decided = (warm if held is not None and held.candidate == chosen else cold)[chosen]
    weak, strong, stayed = warm[names[0]], warm[names[-1]], warm[chosen]
    if decided is None or weak is None or strong is None or stayed is None:
        return None
    return CostComparison(decided, weak, strong, decided - stayed)
