"""Pages are short: one page for one reader, and one page for one decision."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT
from tests.docs.pages import prose

#: Words that a page may have beside its code and its generated tables; a decision has half as many.
MOST_WORDS = {"docs": 1200, "docs/decisions": 600}

#: Lines that README may have.
MOST_README_LINES = 120

_GENERATED = re.compile(r"<!-- (?P<name>[\w-]+): generated.*?-->.*?<!-- /(?P=name) -->", re.S)


def _words(page: Path) -> int:
    return len(_GENERATED.sub("", prose(page)).split())


def test_pages_have_few_words() -> None:
    # Figures of `results.md` come out of a benchmark as a whole.
    pages = [page for folder in MOST_WORDS for page in (ROOT / folder).glob("*.md") if page.name not in {"results.md"}]
    counts = {str(page.relative_to(ROOT)): _words(page) for page in pages}
    assert len(counts) > 50
    assert not {page: n for page, n in counts.items() if n > MOST_WORDS[str(Path(page).parent)]}


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < MOST_README_LINES
