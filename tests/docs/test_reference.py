"""The pages that `make docs` writes say what the program says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.cli.running.serve import serve_verb
from scripts import file_tables, reference
from scripts.api_page import MODULES
from tests.conftest import ROOT
from tests.docs.pages import PAGES as PEOPLE_READ

PAGES = reference.pages()
STALE = "This page is stale: run `make docs` (or .venv/bin/python -m scripts.reference) and commit what it writes."


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (reference.FOLDER / name).read_text("utf-8") == PAGES[name], STALE


def test_the_table_of_rooms_is_current() -> None:
    assert file_tables.ARCHITECTURE.read_text("utf-8") == file_tables.architecture_page(), STALE


def test_every_verb_every_key_and_every_error_is_on_a_page() -> None:
    assert "## elle serve" in PAGES["cli.md"]
    assert "| `--workers` | integer, x>=1 | `1` |" in PAGES["server.md"]
    assert "| `failure_mode` |" in PAGES["policy-file.md"]
    assert "| `UNKNOWN_POLICY` | NOT_FOUND | no |" in PAGES["errors.md"]
    assert "| `calls.py` |" in PAGES["files.md"]


def test_what_pages_and_examples_import_is_on_the_page_of_the_api() -> None:
    examples = (path for path in (ROOT / "examples").rglob("*.py") if "node_modules" not in path.parts)
    texts = [path.read_text("utf-8") for path in (*PEOPLE_READ, *examples)]
    used = {
        name for text in texts for name in re.findall(r"^from ((?:router|probes)[\w.]*) import", text, re.MULTILINE)
    }
    # Errors have a page of their own, and the command line too.
    assert used - {"router.errors", "router.cli.main"} <= set(MODULES) | {"probes.embeddings"}
    assert "### class RouterClient" in PAGES["api.md"]


def test_every_environment_variable_that_the_program_reads_is_on_the_page() -> None:
    sources = (path for package in ("router", "probes") for path in (ROOT / package).rglob("*.py"))
    # Each option of `elle serve` is one; the page states the rule.
    options = {option.envvar for option in serve_verb.configurable()}
    assert _environment(sources) | options == set(reference.ENVIRONMENT) | options


def _environment(sources: Iterator[Path]) -> set[str]:
    return {name for path in sources for name in re.findall(r"\bELLE_[A-Z_]+\b", path.read_text("utf-8"))}
