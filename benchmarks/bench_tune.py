"""Seconds that `elle tune` takes for 10,000 prompts x 10 models from cached features, as JSON on stdout.

    python -m benchmarks.bench_tune [--quick]

Prompts, scores, costs and features (1,152 numbers each, as the default encoder's) are generated; the features are put
into a feature cache first. Timed is the whole command: reading outcomes and cache, walking the path, checking every
decision of the policy, writing it. BLAS is pinned to one thread, as `make` does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.bench_probe import blas_threads, commit, hardware  # pins BLAS, so before numpy

import numpy as np  # isort: skip
import numpy.typing as npt  # isort: skip
import pyarrow as pa  # isort: skip
import pyarrow.parquet as pq  # isort: skip

from probes.artifacts import store as artifact
from probes.encoders.spec import MINILM_L6
from router.tuning.certifying.results.result_json import result_to_dict
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import TuneFiles, tune_command
from router.tuning.fitting.fit import fit_probe
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache

#: Wall seconds (issue 4), for 10,000 prompts x 10 models on 2 cores.
LIMIT_S = 30.0

N_FIT = 2_000

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """Generated prompts of m models whose scores follow the first feature; dearer models are better.

    n: prompts to tune on. n_features: of each prompt. models: cheapest first.
    """

    n: int
    n_features: int
    models: tuple[str, ...]

    def texts(self, kind: str, n: int) -> list[str]:
        """n prompts; the kind tells those to fit on from those to tune on."""
        return [f"{kind} prompt number {i}" for i in range(n)]

    def features(self, kind: str, n: int) -> Array:
        """(n, d), the same for the same kind."""
        rng = np.random.default_rng(len(kind))
        return rng.standard_normal((n, self.n_features), dtype=np.float32)

    def write_outcomes(self, path: Path, kind: str, n: int) -> None:
        """A long-form parquet file with 20 groups."""
        m = len(self.models)
        logit = 2.0 * self.features(kind, n)[:, :1] + np.linspace(0.5, -2.0, m)
        scores = np.random.default_rng(0).random((n, m)) > 1 / (1 + np.exp(-logit))
        columns = {
            "prompt": np.repeat(self.texts(kind, n), m),
            "model": np.tile(self.models, n),
            "score": scores.ravel().astype(float),
            "group": np.repeat([f"group {i % 20}" for i in range(n)], m),
            "cost_usd": np.tile(np.geomspace(1e-5, 1e-2, m), n),
        }
        pq.write_table(pa.table(columns), path)


class _Generated:
    """Stands in for the encoder while the cache is filled."""

    def __init__(self, rows: dict[str, Array]) -> None:
        self._rows = rows
        self.spec = MINILM_L6
        self.n_features = len(next(iter(rows.values())))

    def encode(self, text: str) -> Array:
        return self._rows[text]


def main() -> None:
    """Run every case and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts: checks the script, not the speed")
    quick = parser.parse_args().quick
    world = World(600 if quick else 10_000, 32 if quick else 1_152, tuple(f"model-{i}" for i in range(10)))
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ELLE_CACHE_DIR=f"{folder}/cache"):
        figures = measure(world, Path(folder))
    report = {
        "commit": commit(),
        "hardware": hardware(),
        "blas_threads": blas_threads(),
        "quick": quick,
        "world": asdict(world) | {"n_fit": N_FIT},
        "figures": figures,
        "must": {name: {"limit_s": LIMIT_S, "met": one["wall_s"] <= LIMIT_S} for name, one in figures.items()},
    }
    print(json.dumps(report, indent=2))


def measure(world: World, folder: Path) -> dict[str, dict[str, Any]]:
    """Wall and CPU seconds of `elle tune` by rule, without and with what it can say besides."""
    data = folder / "tune.parquet"
    world.write_outcomes(data, "tune", world.n)
    world.write_outcomes(folder / "fit.parquet", "fit", N_FIT)
    probe = fit_probe(
        read_outcomes(folder / "fit.parquet"), world.features("fit", N_FIT), MINILM_L6, title="generated"
    ).probe
    artifact.save(probe, folder / "probe")
    rows = dict(zip(world.texts("tune", world.n), world.features("tune", world.n), strict=True))
    with mock.patch("router.tuning.outcomes.feature_cache.load_encoder", return_value=_Generated(rows)):
        FeatureCache().features(MINILM_L6, list(rows))
    prices = folder / "prices.yaml"
    cost = {"output_usd_per_million_tokens": 0.0}
    spread = np.geomspace(0.02, 20.0, len(world.models))
    listed = {m: {"input_usd_per_million_tokens": p} | cost for m, p in zip(world.models, spread, strict=True)}
    prices.write_text(json.dumps(listed), "utf-8")
    found = {}
    for rule in ("gain", "cost"):
        plain = TuneSettings((Target("max_loss", 0.05),), models=world.models, rule=rule, prices=str(prices))
        found[f"{rule} rule"] = timed(folder, plain)
        found[f"{rule} rule, --plan --by-group"] = timed(folder, replace(plain, plan=True, by_group=True))
    return found


def timed(folder: Path, settings: TuneSettings) -> dict[str, Any]:
    """One run of the command: seconds, and enough of its answer to see that it did the work."""
    wall, cpu = time.perf_counter(), time.process_time()
    files = TuneFiles(folder / "probe", [folder / "tune.parquet"], out=folder / "policy.yaml")
    found = result_to_dict(tune_command(files, settings))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        **{name: found[name] for name in ("certified", "n_calibration", "weak_share", "loss_upper_bound")},
    }


if __name__ == "__main__":
    main()
