"""Runs `elle tune` in this process, for tests of what it answers and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from router.cli.main import cli
from router.cli.output import NOT_CERTIFIED
from router.policies.certificate import sealed
from router.policies.certificate_record import CertificateRecord
from tests.fakes import FakeEncoder

PRICES = """\
weak: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 1}
strong: {input_usd_per_million_tokens: 10, output_usd_per_million_tokens: 10, model: openai/strong}
"""
PAIR = ("--weak", "weak", "--strong", "strong")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def tune(data_folder: Path, *arguments: object, data: Path | None = None) -> Result:
    return run("tune", data_folder / "probe", data or data_folder / "data.jsonl", *arguments, "--json")


def expire(policy: Path) -> None:
    """Make the policy's certificate one that `elle tune` wrote long ago."""
    data = yaml.safe_load(policy.read_text())
    old = CertificateRecord.model_validate(data["certificate"] | {"expires": "2020-01-01T00:00:00Z"})
    data["certificate"] = sealed(old).model_dump(mode="json")
    policy.write_text(yaml.safe_dump(data))


def answer_of(done: Result) -> dict[str, Any]:
    assert done.exit_code in (0, NOT_CERTIFIED), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def encoder_for(served: Any) -> FakeEncoder:
    return FakeEncoder(served.encoder_spec)
