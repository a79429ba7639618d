"""Scores of a request are found in fields, headers and bodies, and hostile ones are refused or become NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest

from router.asking.caller_scores import MAX_NAME, MAX_SCORES, scores_of
from router.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("given", "headers", "parameters", "expected"),
    [
        ({}, {}, {}, {}),
        ({"P": 0.5}, {}, {}, {"p": 0.5}),
        ({}, {"X-Elle-Score-Confidence": "0.25"}, {}, {"confidence": 0.25}),
        ({}, {"x-elle-scores": '{"a": 1, "b": "-2e-3"}'}, {}, {"a": 1.0, "b": -0.002}),
        ({}, {"x-elle-scores": '{"a": 1}', "x-elle-score-b": "2"}, {}, {"a": 1.0, "b": 2.0}),
        ({}, {}, {"metadata": {"elle_scores": {"a": 1}}}, {"a": 1.0}),
        ({}, {}, {"metadata": {"elle_scores": '{"a": 1}'}}, {"a": 1.0}),
        ({"a": 1}, {"x-elle-score-a": "2"}, {"metadata": {"elle_scores": {"a": 3}}}, {"a": 1.0}),
        ({}, {"x-elle-score-a": "2"}, {"metadata": {"elle_scores": {"a": 3}}}, {"a": 2.0}),
        ({}, {}, {"metadata": "elle_scores"}, {}),
    ],
)
def test_the_field_counts_before_headers_and_these_before_the_body(
    given: Any, headers: Any, parameters: Any, expected: Any
) -> None:
    assert scores_of(given, headers, parameters) == expected


@pytest.mark.parametrize("value", ["high", "", "1_000", "9" * 100, True, None, [0.5], {"p": 1}, 10**400])
def test_a_value_that_is_no_number_is_nan(value: Any) -> None:
    assert math.isnan(scores_of({"p": value}, {}, {})["p"])


@pytest.mark.parametrize(
    ("given", "headers", "parameters", "words"),
    [
        ({f"s{i}": 0.0 for i in range(MAX_SCORES + 1)}, {}, {}, "at most 32 scores"),
        ({"x" * (MAX_NAME + 1): 0.0}, {}, {}, "1 to 64 characters"),
        ({"": 0.0}, {}, {}, "1 to 64 characters"),
        ({"a": 0.0, "A": 1.0}, {}, {}, "each score once, got 'A' twice"),
        ({}, {"x-elle-scores": "0.7"}, {}, "x-elle-scores must be a JSON object"),
        ({}, {"x-elle-scores": "[" * 5000}, {}, "must be a JSON object"),
        ({}, {"x-elle-scores": '{"a": ' + "1" * 10_000 + "}"}, {}, "must be a JSON object"),
        ({}, {}, {"metadata": {"elle_scores": [0.7]}}, "metadata.elle_scores must be a JSON object"),
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(given: Any, headers: Any, parameters: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        scores_of(given, headers, parameters)
    assert len(str(caught.value)) < 300
