"""Hold a part of the rule that all prose is plain English and short; ruff (D400, D401, D403) holds docstrings' form.

No test can tell whether a sentence is clear. These find words that readers had to guess at, and docstrings that say
nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("router", "probes", "benchmarks", "scripts", "examples", "docs", "protos")
SUFFIXES = {".py", ".c", ".h", ".md", ".proto", ".yaml"}

#: Words and turns that a reader once had to guess at, each with what to write in its place.
FORBIDDEN = {
    r"\blikewise\b": "say once more what holds",
    r"\bas (it|they) comes?\b": "say in which form",
    r"\bwhose session a request is\b": "the session that a request belongs to",
    r"\bif (any|none|one) is\b(?! \w)": "name what there is or is not",
    r"\bor None if none\b": "or None if there is no such thing, by its name",
    r"\bRaises? (\w+Error(, and|,| and| or)? ?)+where\b": "Raises X if",
    r"\bdearer\b|\bdearest\b|\bdear model": "expensive",
    r"(?<!_)\bcooldowns?\b(?!_)": "cool-down",
    r"\bclass (Scene|Walked|Stretch|Bench|Line|Crew|Facts|World|Watched)\b": "a term of the field",
}

DOCS = ROOT / "docs"
#: Pages that a program writes whole, as tables to look things up in: their length is that of what they list.
GENERATED = {DOCS / "results.md", *(DOCS / "reference").glob("*.md")}
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(set(DOCS.rglob("*.md")) - GENERATED)]
MOST_WORDS, MOST_WORDS_OF_A_DECISION = 1_199, 599
MOST_LINES_OF_README = 119
#: What a newcomer asks, and reads without scrolling.
README_ANSWERS = ("What does it do for me", "What does it cost me", "How do I undo it")
_WRITTEN_BY_PROGRAM = re.compile(r"<!-- (rooms|results|bench-serve)\b.*?<!-- (/\1|\1: end) -->", re.S)


def sources() -> Iterator[Path]:
    """Yield every file of prose or code that people of the project wrote, tests aside."""
    yield from ROOT.glob("*.md")
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in SUFFIXES and "node_modules" not in path.parts and "pb" not in path.parts:
                yield path


def docstrings(*rooms: str) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every docstring."""
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py") if "pb" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text is not None:
                    yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'the module')}", text


def turns_in(text: str) -> dict[str, str]:
    """Return each forbidden turn in a text, with what to write in its place."""
    # A sentence may run over lines, with the marks of comments between.
    flat = re.sub(r"\s*\n\s*(#:?|//|\*)?\s*", " ", text)
    return {found[0]: advice for turn, advice in FORBIDDEN.items() if (found := re.search(turn, flat))}


def test_no_file_holds_a_turn_that_readers_had_to_guess_at() -> None:
    found = {str(path.relative_to(ROOT)): turns for path in sources() if (turns := turns_in(path.read_text("utf-8")))}
    assert not found


@pytest.mark.parametrize(
    "text",
    ["The end likewise.", "Raises ConfigError where\n    it is bad.", "the first\n# one, if any is.", "class Scene:"],
)
def test_a_forbidden_turn_is_found_also_over_the_end_of_a_line(text: str) -> None:
    assert turns_in(text)


def test_a_first_sentence_has_more_to_say_than_the_name() -> None:
    """Three words are a name and an article; a method that is described elsewhere says where."""
    short = [
        (place, first)
        for place, text in docstrings("router", "probes")
        if len((first := re.split(r"(?<=\.)\s", text)[0]).split()) < 4 and not first.startswith("See `")
    ]
    assert not short


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_short(page: Path) -> None:
    most = MOST_WORDS_OF_A_DECISION if page.parent.name == "decisions" else MOST_WORDS
    # Everything counts that white space separates, tables and code too, as `wc -w` does; only blocks that a program
    # writes into a page do not.
    words = len(_WRITTEN_BY_PROGRAM.sub("", page.read_text("utf-8")).split())
    assert words <= most, (
        f"{words} words: move what another reader needs to a page of its own, or say it in fewer words"
    )


def test_the_pages_that_are_not_counted_say_that_a_program_wrote_them() -> None:
    assert len(GENERATED) >= 6
    for page in GENERATED:
        assert re.search(r"(Generated|Written) by `.*; do not edit", page.read_text("utf-8")), page


def test_the_readme_has_few_lines_one_picture_and_two_tables() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES_OF_README
    assert sum(line.startswith("![") for line in lines) == 1
    # One of the journeys, and one of the results.
    assert sum(line.startswith("|---") for line in lines) == 2
    first_screen = "\n".join(lines[:20])
    assert all(f"**{asked}?**" in first_screen for asked in README_ANSWERS)
