"""Hold that a measured table says which command made it and when, and that the FAQ's figures stand on other pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: A number as measurements give it: with a point, or a share in per cent.
_FIGURE = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.])|\d ?%")
#: A table with fewer figures is an example, or a list of settings.
_MANY = 6
_COMMAND = re.compile(r"`[^`]*(python -m |make |elle |tests/)[^`]*`")
_DATE = re.compile(r"20\d\d-\d\d-\d\d")


def sections(page: Path) -> Iterator[str]:
    """Yield the text of a page from each heading to the next."""
    yield from re.split(r"(?m)^(?=#+ )", page.read_text("utf-8"))


def measured_sections(page: Path) -> Iterator[str]:
    """Yield the sections that hold a table of measured figures."""
    for section in sections(page):
        if any(len(_FIGURE.findall(table)) >= _MANY for table in re.findall(r"(?m)(?:^\|.*\n)+", section)):
            yield section


# results.md says it once, at its beginning, because one command writes the whole page.
PAGES = sorted(
    {*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md"), *(ROOT / "benchmarks" / "studies").glob("*.md")}
    - {DOCS / "results.md"}
)
SECTIONS = [(page.name, section) for page in PAGES for section in measured_sections(page)]


def test_measured_tables_are_found() -> None:
    assert {"performance.md", "ledger.md", "secure.md", "scaling.md", "method.md"} <= {name for name, _ in SECTIONS}


@pytest.mark.parametrize(("name", "section"), SECTIONS, ids=lambda text: text.partition("\n")[0][:40])
def test_a_measured_table_says_which_command_made_it_and_when(name: str, section: str) -> None:
    assert _COMMAND.search(section), f"{name}: name the command that measures this, or the test that holds it"
    assert _DATE.search(section), f"{name}: say on which date this was measured"


def test_every_figure_of_the_faq_stands_on_a_page_that_its_section_links_to() -> None:
    for section in sections(DOCS / "faq.md"):
        linked = "".join(
            (DOCS / name).read_text("utf-8") for name in sorted(set(re.findall(r"\]\(([\w-]+\.md)", section)))
        )
        words = re.sub(r"`[^`]*`|\]\([^)]*\)|^#.*", "", section, flags=re.MULTILINE)
        for figure in re.findall(r"(?<![\w.])\d+\.\d+|\d[\d,]*\d{3}|\d{3}", words):
            assert figure in linked, f"no page that this section links to has {figure}: {section}"
