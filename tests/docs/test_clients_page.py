"""The versions on docs/clients.md are those that the tests run with."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
NODE = json.loads((ROOT / "tests" / "gateways" / "node" / "package.json").read_text("utf-8"))["dependencies"]


def rows(client: str) -> list[str]:
    """Return the versions in the rows of a client."""
    return [row.split("|")[2] for row in PAGE.splitlines() if row.startswith(f"| {client}")]


@pytest.mark.parametrize(
    ("client", "package"),
    [("`openai` for Python", "openai"), ("`AzureOpenAI`", "openai"), ("`anthropic`", "anthropic")],
)
def test_a_python_sdks_version_is_the_one_that_is_installed(client: str, package: str) -> None:
    try:
        installed = version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert rows(client)
    assert all(installed in versions for versions in rows(client))


def test_the_other_versions_are_those_that_are_pinned() -> None:
    pins = (ROOT / "Makefile").read_text("utf-8")
    pinned = {
        "`openai` for Node": [NODE["openai"]],
        "Vercel AI SDK": [NODE["ai"], NODE["@ai-sdk/openai"]],
        "`@anthropic-ai/sdk` for Node": [NODE["@anthropic-ai/sdk"]],
        "OpenAI Agents SDK": re.findall(r"openai-agents==([\d.]+)", pins),
        "pydantic-ai": re.findall(r"pydantic-ai-slim\[openai\]==([\d.]+)", pins),
        "`openai` for Python |": re.findall(r"install --quiet openai==([\d.]+)", pins),
    }
    for client, versions in pinned.items():
        assert versions, client
        assert rows(client.removesuffix(" |")), client
        assert all(one in rows(client.removesuffix(" |"))[0] for one in versions), client
