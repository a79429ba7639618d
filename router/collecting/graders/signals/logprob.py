"""Grade by the probabilities that the candidate gave its own tokens (`TokenLoss`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from router.collecting.graders.base import Grader, GradingContext
from router.collecting.values import ModelAnswer, Sample, Verdict


@dataclass(frozen=True)
class TokenLoss(Grader):
    """Turns the mean token loss of the answer into a score: `exp(-loss)`, above 0 and at most 1.

    That is the geometric mean of the probabilities of the answer's tokens. It is the ELLE loss of the served model
    itself, and says how sure the model was, not whether it was right.
    """

    name: ClassVar[str] = "logprob"
    needs_token_loss: ClassVar[bool] = True

    async def grade(self, sample: Sample, answer: ModelAnswer, context: GradingContext) -> Verdict:
        """Return the score, or none if the provider reported no log-probabilities."""
        loss = answer.mean_token_loss
        if loss is None or not (math.isfinite(loss) and loss >= 0):
            return self.no_verdict("the provider reported no log-probabilities of the answer's tokens")
        return self.verdict(math.exp(-loss))
