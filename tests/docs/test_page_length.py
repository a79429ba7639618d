"""A page is short enough to be read in one go: one reader, fewer than 1,200 words; a decision fewer than 600."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
#: Pages that a program writes whole, as tables to look things up in: their length is that of what they list.
GENERATED = {DOCS / "results.md", *(DOCS / "reference").glob("*.md")}
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set(DOCS.rglob("*.md")) - GENERATED)]
MOST_WORDS, MOST_WORDS_OF_A_DECISION = 1_199, 599
MOST_LINES_OF_README = 119


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short(page: Path) -> None:
    most = MOST_WORDS_OF_A_DECISION if page.parent.name == "decisions" else MOST_WORDS
    # Everything counts that white space separates, tables and code too, as `wc -w` does.
    words = len(page.read_text("utf-8").split())
    assert words <= most, (
        f"{words} words: move what another reader needs to a page of its own, or say it in fewer words"
    )


def test_the_pages_that_are_not_counted_say_that_a_program_wrote_them() -> None:
    assert len(GENERATED) >= 6
    for page in GENERATED:
        assert re.search(r"(Generated|Written) by `.*; do not edit", page.read_text("utf-8")), page


def test_the_readme_has_few_lines_one_picture_and_one_table() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES_OF_README
    assert sum(line.startswith("![") for line in lines) == 1
    assert sum(line.startswith("|---") for line in lines) == 1
