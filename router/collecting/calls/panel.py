"""Name everybody who may be asked while collecting, candidates and judges, with prices and limits (`Panel`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from probes.errors import DataError
from router.answering.candidate_check import problems_here
from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate, Prices, by_any_name
from router.policies.candidates.prices import resolve_prices
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.loading import ServedPolicy, assemble
from router.policies.policy_file import FixedRule, PolicyFile
from router.quoting import did_you_mean

_POLICY = "collect"


@dataclass(frozen=True)
class Panel:
    """The candidates of a policy, and the further models that judge answers.

    Attributes:
        candidates: who answers every prompt, in the order of the policy.
        judges: further models that graders ask.
    """

    candidates: tuple[Candidate, ...]
    judges: tuple[Candidate, ...] = ()

    @classmethod
    def of(
        cls, candidates: Sequence[Candidate], judges: Iterable[str] = (), described: Sequence[Candidate] = ()
    ) -> Panel:
        """Return the panel of these candidates and judges.

        judges: names of candidates, of `described` judges, or LiteLLM model strings. described: judges that need more
        than a model string, such as an `api_base`. Raises ConfigError for a judge that is none of these.
        """
        known = cls(tuple(candidates), tuple(described))
        asked, new = list[Candidate](), list[Candidate]()
        for name in dict.fromkeys(judges):
            found = known.find(name)
            (new if found is None else asked).append(found or _judge(name, known))
        return cls(known.candidates, (*(one for one in described if one in asked), *new))

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the candidates in outcomes, which are those that a probe is fitted to."""
        return tuple(candidate.name_in_probe for candidate in self.candidates)

    def find(self, name: str) -> Candidate | None:
        """Return the candidate or judge that goes by a name: the policy's, the probe's, or the model's own."""
        return self._by_name.get(name)

    def member(self, name: str) -> Candidate:
        """Return the candidate or judge of this name. Raises ConfigError, with the nearest name, if there is none."""
        found = self.find(name)
        if found is None:
            raise ConfigError(
                f"{name!r} must be a candidate of the policy ({', '.join(c.name for c in self.candidates)})."
                f"{did_you_mean(name, self._by_name)}"
            )
        return found

    @cached_property
    def policy(self) -> ServedPolicy:
        """The policy under which our dispatcher asks them: one attempt each, and never another in its place."""
        everybody = tuple(
            # Retries and their cost are counted here, and a pause after failures would only hide them.
            one.model_copy(update={"retries": 0, "break_after": 10**6})
            for one in (*self.candidates, *self.judges)
        )
        first = everybody[0].name
        rule = FixedRule(kind="fixed", candidate=first)
        return assemble(
            PolicyFile(
                schema="elle.policy/1",
                name=_POLICY,
                candidates=everybody,
                rule=rule,
                safe_default=first,
                fallback="none",
            ),
            None,
        )

    @cached_property
    def _prices(self) -> dict[str, Prices | None]:
        return {one.name: resolve_prices(one) for one in (*self.candidates, *self.judges)}

    def prices(self, candidate: Candidate) -> Prices | None:
        """Return the list prices of a member, or None if they are unknown."""
        return self._prices[candidate.name]

    @property
    def uses_canned(self) -> bool:
        """True if the built-in upstream answers for a member."""
        return any(one.api_base == CANNED_UPSTREAM for one in (*self.candidates, *self.judges))

    def check(self, *, priced: bool) -> None:
        """Check that there is something to compare and that everybody can be asked and paid.

        priced: whether every price must be known, as a budget in USD needs.

        Raises DataError for fewer than two candidates, and ConfigError for unknown prices and missing keys.
        """
        if len(self.candidates) < 2:
            raise DataError("the policy must have two candidates or more to compare; add one under `candidates`.")
        everybody = (*self.candidates, *self.judges)
        if priced and (unknown := [one.name for one in everybody if self.prices(one) is None]):
            raise ConfigError(
                f"--budget-usd needs the price of everybody who is asked; {', '.join(unknown)} have none. Set `prices` "
                "in the policy, or leave --budget-usd out and give --max-calls."
            )
        if problems := problems_here(everybody):
            raise ConfigError(" ".join(problems))

    @cached_property
    def _by_name(self) -> dict[str, Candidate]:
        return by_any_name((*self.candidates, *self.judges))


def _judge(name: str, known: Panel) -> Candidate:
    """Return a judge that is no candidate, at LiteLLM's prices if it has any."""
    if "/" not in name:
        known.member(name)
    fields = {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:128], "model": name}
    priced = Candidate.model_validate({**fields, "prices": "litellm"})
    try:
        resolve_prices(priced)
    except ConfigError:
        return Candidate.model_validate(fields)
    return priced
