"""The reason in plain words: it says what the record says, for every reason, and invents nothing."""

from __future__ import annotations

import pytest

from router.decision import ArtifactRef, CandidateRisk, NearKind, NearKinds, Reason, RoutingDecision, ScoreUsed, Timings
from router.explaining.sentences import plain_reason, short_reason

TALK = NearKinds((NearKind("greeting or small talk", 0.84), NearKind("short list", 0.1)), known=True)
VAGUE = NearKinds((NearKind("law exam", 0.21), NearKind("short list", 0.2)), known=True)
NONE = NearKinds((NearKind("law exam", 0.9),), known=False)


def record(reason: Reason, chosen: str = "economy", **changes: object) -> RoutingDecision:
    candidates = [CandidateRisk("economy", "e", 0.4, 0.4, None), CandidateRisk("frontier", "f", 0.25, 0.25, None)]
    fields: dict[str, object] = {
        "decision_id": "1", "requested": "default", "chosen": chosen, "chosen_model": "m", "reason": reason,
        "difficulty": 0.3, "candidates": tuple(candidates), "threshold": None, "gain": None,
        "policy": ArtifactRef("default", "1", "0"), "probe": None, "abstained": False, "leverage": 0.01,
        "timings": Timings(), "session_id": "", "input_tokens_estimate": 3,
    }  # fmt: skip
    return RoutingDecision(**fields | changes)  # type: ignore[arg-type]


GAIN = 0.4 - 0.25


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (
            record(Reason.GAIN_BELOW_THRESHOLD, gain=GAIN, threshold=0.4, kinds=TALK),
            "Greeting or small talk (84 %), well within the economy tier: frontier is expected to be better by 0.150, "
            "and must be by 0.400.",
        ),
        (
            record(Reason.GAIN_BELOW_THRESHOLD, gain=GAIN, threshold=0.16, kinds=VAGUE),
            "Most like law exam (21 %), economy is enough: frontier is expected to be better by 0.150, and must be by "
            "0.160.",
        ),
        (
            record(Reason.GAIN_BELOW_THRESHOLD, gain=GAIN, threshold=0.4),
            "Well within the economy tier: frontier is expected to be better by 0.150, and must be by 0.400.",
        ),
        (
            record(Reason.GAIN_ABOVE_THRESHOLD, "frontier", gain=GAIN, threshold=0.1, kinds=NONE),
            "Of none of the known kinds: frontier is expected to be better than economy by 0.150, and must be by "
            "0.100.",
        ),
        (
            record(Reason.WITHIN_RISK_BOUND, threshold=0.5),
            "economy is the cheapest candidate whose risk, 0.400, is within the bound of 0.500.",
        ),
        (
            record(Reason.NONE_WITHIN_RISK_BOUND, "frontier", threshold=0.1),
            "No candidate is within the bound of 0.100 on the risk; that of frontier, 0.250, is the least.",
        ),
        (record(Reason.FIXED), "The policy always chooses economy."),
        (record(Reason.PINNED), "The request asks for economy."),
        (record(Reason.FAILED_OPEN), "The prompt could not be judged, so that the safe default economy answers."),
        (record(Reason.SESSION_HELD), "economy has answered this session so far, and goes on."),
        (
            record(Reason.ABSTAINED, leverage=None),
            "There is no text to judge, so that the safe default economy answers.",
        ),
        (
            record(Reason.ABSTAINED, leverage=None, score=ScoreUsed("confidence", None, "missing")),
            "The score 'confidence' cannot be used (missing), so that the safe default economy answers.",
        ),
        (
            record(Reason.ABSTAINED, "frontier", gain=GAIN, threshold=0.2, would_choose="economy", kinds=NONE),
            "Of none of the known kinds: unlike the prompts of the fit, so that the safe default frontier answers; the "
            "rule would choose economy.",
        ),
        (record(Reason.UNKNOWN), "This version does not know the reason that the service gave."),
        (record(Reason.ONLY_ELIGIBLE), "Only economy may answer."),
    ],
)
def test_the_sentence_says_what_the_record_says(decision: RoutingDecision, sentence: str) -> None:
    assert plain_reason(decision) == sentence


def test_the_only_candidate_and_why_not_the_others() -> None:
    candidates = (
        CandidateRisk("economy", "e", None, None, None, ("cannot handle image", "context window of 9 tokens")),
        CandidateRisk("frontier", "f", None, None, None),
    )
    found = plain_reason(record(Reason.ONLY_ELIGIBLE, "frontier", candidates=candidates))
    assert found == "Only frontier may answer (economy: cannot handle image)."


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    for kinds in (None, TALK, NONE):
        found = plain_reason(record(reason, kinds=kinds))
        # The name of a candidate stays as it is written.
        assert found[0].isupper() or found.startswith("economy ")
        assert found.endswith(".")
        assert reason is Reason.UNKNOWN or "does not know" not in found


def test_a_stronger_candidate_that_is_not_better_is_said_to_be_so() -> None:
    candidates = (CandidateRisk("economy", "e", 0.2, 0.2, None), CandidateRisk("frontier", "f", 0.25, 0.25, None))
    decision = record(Reason.GAIN_BELOW_THRESHOLD, gain=0.2 - 0.25, threshold=0.1, candidates=candidates)
    assert plain_reason(decision) == "Well within the economy tier: frontier is not expected to be better."


def test_the_short_reason_has_neither_shares_nor_gains() -> None:
    low = record(Reason.GAIN_BELOW_THRESHOLD, gain=GAIN, threshold=0.4, kinds=TALK)
    near = record(Reason.GAIN_BELOW_THRESHOLD, gain=GAIN, threshold=0.16, kinds=VAGUE)
    high = record(Reason.GAIN_ABOVE_THRESHOLD, "frontier", gain=GAIN, threshold=0.1, kinds=TALK)
    assert short_reason(low) == "Greeting or small talk, well within the economy tier."
    assert short_reason(near) == "Most like law exam, economy is enough."
    assert short_reason(high) == "Greeting or small talk: frontier is worth its price."
    assert short_reason(record(Reason.PINNED)) == plain_reason(record(Reason.PINNED))


def test_a_record_whose_risks_do_not_fit_its_gain_gets_no_invented_comparison() -> None:
    decision = record(Reason.GAIN_ABOVE_THRESHOLD, "frontier", gain=0.9, threshold=0.1)
    assert plain_reason(decision) == "The rule of the policy chose frontier."
