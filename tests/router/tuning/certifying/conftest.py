"""Provide outcomes and a probe fitted on about half of them, for tests of `elle tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.tuning.outcomes import feature_cache as features_module
from tests.fakes import FakeEncoder
from tests.router.tuning.certifying.tune_verb import PRICES, run
from tests.tuning_outcomes import write_outcomes


@pytest.fixture(scope="module")
def _encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
        patch.setenv("ELLE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data_folder(_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one data file of 2,400 prompts, and a probe fitted on about half of them."""
    folder = tmp_path_factory.mktemp("data_folder")
    write_outcomes(folder / "data.jsonl", 2400)
    (folder / "prices.yaml").write_text(PRICES)
    done = run("fit", folder / "data.jsonl", "--holdout", 0.5, "--out", folder / "probe", "--json")
    assert done.exit_code == 0, done.output
    return folder
