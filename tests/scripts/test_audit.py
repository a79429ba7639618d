"""`make audit` never takes a package that could not be looked up for one without a vulnerability."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.audit import verdict

GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED: dict[str, Any] = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "status", "words"),
    [
        ([GOOD], 0, "none has a known vulnerability"),
        ([GOOD, BAD], 1, "VULNERABLE: b 2: PYSEC-1, fixed in 3."),
        ([GOOD, SKIPPED], 3, "NOT AUDITED: 1 of 2 packages"),
        ([SKIPPED] * 9, 3, "and 4 more"),
        ([BAD, SKIPPED], 1, "NOT AUDITED"),
        ([], 3, "NOT AUDITED"),
    ],
)
def test_what_the_answer_means(packages: list[dict[str, Any]], status: int, words: str) -> None:
    text, found = verdict(packages)
    assert found == status
    assert words in text
