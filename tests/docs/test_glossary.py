"""The glossary is in order, and the code uses each of its words."""

from __future__ import annotations

from tests.conftest import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| word here")
]


def test_each_word_stands_once_in_order_with_its_meaning_and_the_term_of_the_literature() -> None:
    words = [row[0].lower() for row in ROWS]
    assert words == sorted(set(words))
    assert all(len(row) == 3 and all(row) for row in ROWS)


def test_the_code_uses_every_word() -> None:
    code = "\n".join(
        path.read_text("utf-8") for package in ("router", "probes") for path in (ROOT / package).rglob("*.py")
    ).lower()
    # A name in code has underscores between its words, and a sentence may end a line between them.
    flat = " ".join(code.replace("_", " ").split())
    assert not [row[0] for row in ROWS if row[0].lower() not in flat]
