"""CHANGELOG.md has a dated section for each release, the newest first, and that is the version of the package."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT


def test_releases_are_dated_in_order_and_the_newest_is_the_version_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    releases = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - (20\d\d-\d\d-\d\d)", heading) for heading in headings]
    assert all(releases), headings
    found = [(tuple(map(int, one.group(1, 2, 3))), one[4]) for one in releases if one]
    assert found == sorted(found, reverse=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert headings[0].startswith(f"{version} - ")
