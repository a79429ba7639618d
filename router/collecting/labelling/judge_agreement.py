"""Measure how far a grader agrees with people, by model and by group (`measure_agreement`)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.certificates.exact_counts import clopper_pearson_upper
from router.collecting.values import COMPARED_WITH, HUMAN_SCORE, SCORE
from router.tuning.outcomes.records import number_of

#: The confidence of the intervals, one at a time.
CONFIDENCE = 0.95
#: Scores up to a third count as low, above two thirds as high: worse, tie and better after a comparison.
_LOW, _HIGH = 1 / 3, 2 / 3


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How far a grader agrees with people on n answers.

    Attributes:
        n: answers that both graded.
        n_agree: those of one class, low, middle or high.
        low, high: the Clopper-Pearson interval of the share of agreement at `CONFIDENCE`, as if answers were
            independent draws.
        kappa: Cohen's kappa (1960): agreement beyond chance, 1 at most, 0 if the grader guesses with the frequencies
            that it has; None if chance alone would always agree.
        grader_mean, human_mean: the mean scores, 0 to 1. The certificate about people corrects their difference.
        better_than_people, worse_than_people: answers that the grader puts into a higher or lower class than people.
    """

    n: int
    n_agree: int
    low: float
    high: float
    kappa: float | None
    grader_mean: float
    human_mean: float
    better_than_people: int
    worse_than_people: int

    def to_dict(self) -> dict[str, Any]:
        """Return all figures for JSON, with the share of agreement."""
        figures = {name: getattr(self, name) for name in self.__slots__}
        return {"agreement": self.n_agree / self.n, **figures}


def measure_agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, JudgeAgreement]]:
    """Return how far the grader agrees with people: in all (`all`), by `model` and by `group`, by name.

    rows: graded outcomes of which some have a human score. Those of the model that others are compared with do not
    count, because nobody is asked about them.
    """
    asked = [row for row in rows if row.get(COMPARED_WITH) != row.get("model")]
    both = [(row, number_of(row.get(SCORE)), number_of(row.get(HUMAN_SCORE))) for row in asked]
    parts: dict[str, dict[str, list[tuple[float, float]]]] = {
        kind: defaultdict(list) for kind in ("all", "model", "group")
    }
    for row, score, human in both:
        if score is not None and human is not None:
            parts["all"]["all"].append((score, human))
            parts["model"][str(row.get("model"))].append((score, human))
            if row.get("group"):
                parts["group"][str(row["group"])].append((score, human))
    return {kind: {name: agreement_of(pairs) for name, pairs in sorted(named.items())} for kind, named in parts.items()}


def agreement_of(pairs: Sequence[tuple[float, float]]) -> JudgeAgreement:
    """Return the agreement of pairs of a grader's score and a person's score, at least one pair."""
    classes = [(_class(score), _class(human)) for score, human in pairs]
    n, n_agree = len(classes), sum(score == human for score, human in classes)
    delta = (1 - CONFIDENCE) / 2
    return JudgeAgreement(
        n=n,
        n_agree=n_agree,
        low=1 - float(clopper_pearson_upper(n - n_agree, n, delta)),
        high=float(clopper_pearson_upper(n_agree, n, delta)),
        kappa=_kappa(classes),
        grader_mean=sum(score for score, _ in pairs) / n,
        human_mean=sum(human for _, human in pairs) / n,
        better_than_people=sum(score > human for score, human in classes),
        worse_than_people=sum(score < human for score, human in classes),
    )


def _class(score: float) -> int:
    return 0 if score < _LOW else 1 if score <= _HIGH else 2


def _kappa(classes: Sequence[tuple[int, int]]) -> float | None:
    n = len(classes)
    observed = sum(score == human for score, human in classes) / n
    of_grader, of_people = (Counter(pair[side] for pair in classes) for side in (0, 1))
    by_chance = sum(of_grader[one] * of_people[one] for one in of_grader) / n**2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
