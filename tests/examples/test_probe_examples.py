"""The examples of the probe library run and say what they promise."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def said(capsys):
    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_selection_example_finds_what_was_planted(said):
    pytest.importorskip("sklearn", reason="the example reads scikit-learn's digits")
    text = said("selection.py")
    assert "1349 of 1797 images kept" in text
    assert "9 of the 9 broken ones" in text
    assert "10 of the 10 disturbed" in text


def test_the_scoring_example_goes_on_after_an_interruption(said):
    pytest.importorskip("pyarrow", reason="the example writes parquet")
    text = said("scoring.py")
    assert "is there an output? False" in text
    assert "50000 rows scored, 30000 of them before" in text
