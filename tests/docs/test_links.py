"""Every relative link, file, module and make target that a page names exists."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from pathlib import Path

import pytest

from scripts.file_tables import BEGIN, END
from tests.conftest import ROOT
from tests.docs.pages import PAGES, prose

_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
_ROOMS = "router|probes|tests|docs|benchmarks|scripts|examples|protos"
_PATH = re.compile(rf"(?<![\w./-])((?:{_ROOMS})/[\w./-]*\w)(?:::\w+)?")
_BELOW_A_PACKAGE = re.compile(r"`((?:\w+/)+\w+\.(?:py|c|h))`")
_FILE = re.compile(r"`([\w-]+\.(?:py|c|h|md|yaml|proto))`")
_MODULE = re.compile(r"python -m ((?:benchmarks|scripts|tests)[\w.]*)")
_TARGET = re.compile(r"`make ([a-z-]+)`")
#: Where a page may begin a path: `policies/choice.py` is below `router`.
_FOLDERS = ("", "router", "router/tuning", "probes")
#: Files that users have and this repository does not.
_OF_OTHERS = {"config.yaml", "my.yaml", "policy.yaml", "tuned.yaml"}

page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@page_by_page
def test_every_relative_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link}: there is no {path}"
        assert not anchor or anchor in _anchors(path), f"{link}: {path.name} has no such heading"


@page_by_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = prose(page)
    for name in _PATH.findall(text) + _BELOW_A_PACKAGE.findall(text):
        assert any((ROOT / folder / name).exists() for folder in _FOLDERS), f"{page.relative_to(ROOT)} names {name}"
    unknown = set(_FILE.findall(text)) - _OF_OTHERS - _names_of_files()
    assert not unknown, f"{page.relative_to(ROOT)} names {unknown}"


@page_by_page
def test_every_module_and_every_make_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in _MODULE.findall(text):
        assert importlib.util.find_spec(name.rstrip(".")) is not None, f"{page.relative_to(ROOT)} runs {name}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert set(_TARGET.findall(text)) <= set(targets), page.relative_to(ROOT)


def test_the_pages_for_readers_are_short() -> None:
    generated = {
        "results.md",
        "api.md",
        "cli.md",
        "policy-file.md",
        "files.md",
        "server.md",
        "errors.md",
        "performance.md",
    }
    for page in (ROOT / "docs").rglob("*.md"):
        written, _, rest = page.read_text("utf-8").partition(BEGIN)
        words = len((written + rest.rpartition(END)[2] if rest else written).split())
        bound = 620 if page.parent.name == "decisions" else 1300
        assert words <= bound or page.name in generated, f"{page.relative_to(ROOT)} has {words} words"
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


@functools.cache
def _names_of_files() -> set[str]:
    """Return the names of all files of ours, without what package managers put beside them."""
    found: set[str] = set()
    for _, folders, files in os.walk(ROOT):
        folders[:] = [one for one in folders if one not in {"node_modules", ".git"} and not one.startswith(".venv")]
        found.update(files)
    return found


def _anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
