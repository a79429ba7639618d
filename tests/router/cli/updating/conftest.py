"""Provide outcomes, a probe that keeps its statistics, and a certified policy on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.tuning.outcomes import feature_cache as features_module
from tests.fakes import FakeEncoder
from tests.router.cli.test_label_task import run, said
from tests.router.tuning.certifying.tune_verb import PRICES
from tests.tuning_outcomes import write_outcomes


@pytest.fixture(scope="package")
def fake_features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replace the forward pass where encoders are loaded, for all tests of this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "load_encoder", lambda spec, directory=None: FakeEncoder(spec))
        patch.setenv("ELLE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def served(fake_features: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `data.jsonl`, a probe on half of it, `policy.yaml`, and `later.jsonl` of new labels."""
    folder = tmp_path_factory.mktemp("served")
    write_outcomes(folder / "data.jsonl", 800)
    write_outcomes(folder / "later.jsonl", 900, tag="later", seed=7)
    (folder / "prices.yaml").write_text(PRICES)
    said(run("fit", folder / "data.jsonl", "--holdout", 0.5, "--keep-statistics", "--out", folder / "probe", "--json"))
    said(
        run(
            *("tune", folder / "probe", folder / "data.jsonl", "--weak", "weak", "--strong", "strong"),
            *("--max-loss", 0.2, "--profile", "thrifty=0.25", "--prices", folder / "prices.yaml"),
            *("--out", folder / "policy.yaml", "--json"),
        )
    )
    return folder
