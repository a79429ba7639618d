"""The example of efforts goes from outcomes to a tuned policy over two efforts of one model, and saves half."""

from __future__ import annotations

import runpy
import sys

import pytest

from router.policies.loading import load_policy
from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "efforts"


def test_the_policy_of_the_example_asks_one_model_at_two_efforts() -> None:
    candidates = load_policy(FOLDER / "policy.yaml").rules.file.candidates
    assert [one.params.reasoning_effort for one in candidates] == ["low", "high"]
    assert len({one.model for one in candidates}) == 1
    assert [one.name_in_probe for one in candidates] == ["gpt-x@low", "gpt-x@high"]


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
def test_the_example_says_what_its_page_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(FOLDER / "efforts.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()[-2:]
    page = (FOLDER / "README.md").read_text("utf-8")
    assert all(line in page for line in said), said
