"""Measure how many seconds `elle tune` takes for 10,000 prompts and 10 models; print JSON.

    python -m benchmarks.bench_tune [--quick]

Prompts, scores, costs and features (1,152 numbers for each prompt, as with the default encoder) are generated, and the
features are stored in a feature cache. The time is that of the whole command: it reads outcomes and cache, tests the
policies of the path, checks every decision of the selected policy, and writes it. BLAS uses one thread, as with `make`.
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

#: Seconds of wall time that the command may take for 10,000 prompts and 10 models on 2 cores.
LIMIT_S = 30.0

N_FIT = 2_000

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GeneratedOutcomes:
    """Generated prompts, with scores of m models that follow the first feature; more expensive models are better.

    n: the number of prompts to tune on. n_features: of each prompt. models: their names, cheapest first.
    """

    n: int
    n_features: int
    models: tuple[str, ...]

    def texts(self, kind: str, n: int) -> list[str]:
        """Return n prompts. `kind` is "fit" or "tune", and is part of each text."""
        return [f"{kind} prompt number {i}" for i in range(n)]

    def features(self, kind: str, n: int) -> Array:
        """Return features (n, d); they are the same for the same kind."""
        rng = np.random.default_rng(len(kind))
        return rng.standard_normal((n, self.n_features), dtype=np.float32)

    def write_outcomes(self, path: Path, kind: str, n: int) -> None:
        """Write a parquet file with a row for each prompt and model, in 20 groups."""
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


class _EncoderOfGenerated:
    """Returns the generated features in place of an encoder while the cache is filled."""

    def __init__(self, rows: dict[str, Array]) -> None:
        self._rows = rows
        self.spec = MINILM_L6
        self.n_features = len(next(iter(rows.values())))

    def encode(self, text: str) -> Array:
        return self._rows[text]


def main() -> None:
    """Measure every case and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use few prompts, to check the script and not the speed")
    quick = parser.parse_args().quick
    generated = GeneratedOutcomes(
        600 if quick else 10_000, 32 if quick else 1_152, tuple(f"model-{i}" for i in range(10))
    )
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ELLE_CACHE_DIR=f"{folder}/cache"):
        figures = measure(generated, Path(folder))
    report = {
        "commit": commit(),
        "hardware": hardware(),
        "blas_threads": blas_threads(),
        "quick": quick,
        "data": asdict(generated) | {"n_fit": N_FIT},
        "figures": figures,
        "must": {name: {"limit_s": LIMIT_S, "met": one["wall_s"] <= LIMIT_S} for name, one in figures.items()},
    }
    print(json.dumps(report, indent=2))


def measure(generated: GeneratedOutcomes, folder: Path) -> dict[str, dict[str, Any]]:
    """Run `elle tune` with each kind of rule, and with --plan and --by group, and return the seconds of each."""
    data = folder / "tune.parquet"
    generated.write_outcomes(data, "tune", generated.n)
    generated.write_outcomes(folder / "fit.parquet", "fit", N_FIT)
    probe = fit_probe(
        read_outcomes(folder / "fit.parquet"), generated.features("fit", N_FIT), MINILM_L6, title="generated"
    ).probe
    artifact.save(probe, folder / "probe")
    rows = dict(zip(generated.texts("tune", generated.n), generated.features("tune", generated.n), strict=True))
    with mock.patch("router.tuning.outcomes.feature_cache.load_encoder", return_value=_EncoderOfGenerated(rows)):
        FeatureCache().features(MINILM_L6, list(rows))
    prices = folder / "prices.yaml"
    cost = {"output_usd_per_million_tokens": 0.0}
    spread = np.geomspace(0.02, 20.0, len(generated.models))
    listed = {m: {"input_usd_per_million_tokens": p} | cost for m, p in zip(generated.models, spread, strict=True)}
    prices.write_text(json.dumps(listed), "utf-8")
    found = {}
    for rule in ("gain", "cost"):
        plain = TuneSettings((Target("max_loss", 0.05),), models=generated.models, rule=rule, prices=str(prices))
        found[f"{rule} rule"] = timed(folder, plain)
        found[f"{rule} rule, --plan --by group"] = timed(folder, replace(plain, plan=True, by="group"))
    return found


def timed(folder: Path, settings: TuneSettings) -> dict[str, Any]:
    """Run the command once; return its seconds, and figures of its result that show that it did the work."""
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
