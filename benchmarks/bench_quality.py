"""Run the whole evaluation on ../shared/data, print JSON, and rewrite docs/results.md and the table in README.md.

    python -m benchmarks.bench_quality > quality.json
    python -m benchmarks.bench_quality --render quality.json    # only the pages, from an earlier run
    python -m benchmarks.bench_quality --only tasks --update quality.json > newer.json    # one part anew, and the pages

Features come from the cache (ELLE_CACHE_DIR); what is not in it is encoded first, which takes long. Everything that is
learned is learned on other folds than it is judged on, and texts that repeat stay on one side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.default_probe.measure import measure
from benchmarks.quality.held_out import held_out_results
from benchmarks.quality.many_models import Table, group_means, many_model_results
from benchmarks.quality.new_model import new_model_results
from benchmarks.quality.pairs import FOLDS, pair_results
from benchmarks.quality.results_page import write_pages
from benchmarks.quality.tasks import task_results
from benchmarks.quality.transfer import domain_results, transfer_results
from probes.encoders.spec import MINILM_L6
from probes.grouping import group_numbers
from probes.probe import software_versions, utc_now
from router.tuning.certifying.targets import Target
from router.tuning.judging.cross_validation import Split, probe_risk, split_folds
from router.tuning.outcomes.candidates import PricedModel
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

WEAK, STRONG = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
PRO_WEAK, PRO_STRONG = "Meta-Llama-3.1-8B-Instruct", "gpt-4o-2024-05-13"

#: USD per million input and output tokens, as listed in the data's README.
PRICES_USD = {
    "Mistral-7B-Instruct-v0.2": (0.05, 0.05),
    "Phi-3-mini-4k-instruct": (0.05, 0.05),
    "Meta-Llama-3.1-8B-Instruct": (0.05, 0.08),
    "Mixtral-8x7B-Instruct-v0.1": (0.24, 0.24),
    "Meta-Llama-3.1-70B-Instruct": (0.40, 0.40),
    "Qwen1.5-72B-Chat": (0.40, 0.40),
    "gemini-1.5-flash-002": (0.075, 0.30),
    "gemini-1.5-pro-002": (1.25, 5.00),
    "gpt-4o-2024-05-13": (5.00, 15.00),
    "gemini-3.1-pro": (2.00, 12.00),
}

FloatArray = npt.NDArray[np.float64]


def main() -> None:
    """Run the parts asked for, print JSON, rewrite the pages if all of them ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON", help="only rewrite the pages, from this file")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="only this part; no page is rewritten")
    parser.add_argument("--update", type=Path, metavar="JSON", help="take the other parts from this file")
    parser.add_argument("--prompts", type=int, help="only this many prompts of each file; no page is rewritten")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    if options.render:
        write_pages(json.loads(options.render.read_text("utf-8")), ROOT)
        return
    if not DATA.is_dir():
        sys.exit("bench_quality needs ../shared/data beside this checkout; there is none.")
    earlier = json.loads(options.update.read_text("utf-8")) if options.update else None
    found = updated(earlier, run(options.only or list(PARTS), options.prompts, options.resamples))
    print(json.dumps(found, indent=2, allow_nan=False))
    if not options.prompts and all(part in found for part in PARTS):
        write_pages(found, ROOT)


def run(parts: list[str], prompts: int | None, resamples: int) -> dict[str, Any]:
    """Return the results of these parts, with the machine, the commit and the date."""
    found: dict[str, Any] = {
        "created": utc_now(),
        "commits": {},
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "hardware": {"processor": _processor(), "cores": os.cpu_count(), "platform": platform.platform()},
        "software": software_versions(),
        "encoder": MINILM_L6.identity,
        "settings": {"folds": FOLDS, "resamples": resamples, "prompts_per_file": prompts, "seed": 0},
        "seconds": {},
    }
    for part in parts:
        # A checkout may move on while a part runs; what runs is what was there at its start.
        found["commits"][part] = _git("rev-parse", "HEAD")
        started = time.perf_counter()
        found[part] = PARTS[part](prompts, resamples)
        found["seconds"][part] = round(time.perf_counter() - started, 1)
        print(f"{part}: {found['seconds'][part]} s", file=sys.stderr)
    return found


def updated(earlier: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, with the parts of an earlier run that were not measured anew, and the commits of each."""
    if earlier is None:
        return found
    joined = {**earlier, **found}
    for name in ("commits", "seconds"):
        joined[name] = {**earlier[name], **found[name]}
    joined["uncommitted_changes"] = earlier["uncommitted_changes"] or found["uncommitted_changes"]
    return joined


def load(name: str, models: tuple[str, ...], prompts: int | None) -> tuple[Outcomes, npt.NDArray[np.float32]]:
    """Load the prompts that all these models answered, the first `prompts` of a fixed shuffle, with their features."""
    outcomes = read_outcomes(DATA / f"{name}.parquet").select_models(models).complete_rows()
    if prompts is not None and prompts < len(outcomes):
        kept = np.sort(np.random.default_rng(0).permutation(len(outcomes))[:prompts])
        outcomes = outcomes.take(kept)
    return outcomes, FeatureCache().features(MINILM_L6, outcomes.texts)


def mmlu(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure RouteLLM's pair of models on MMLU."""
    return pair_results(*load("routellm_mmlu", (WEAK, STRONG), prompts), resamples=resamples)


def gsm8k(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure RouteLLM's pair of models on GSM8K, which has no groups."""
    return pair_results(*load("routellm_gsm8k", (WEAK, STRONG), prompts), resamples=resamples)


def mmlu_pro(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure a small and a large model on MMLU-Pro."""
    return pair_results(*load("mmlu_pro", (PRO_WEAK, PRO_STRONG), prompts), resamples=resamples)


def transfer(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure transfer from MMLU to GSM8K with none and few of its labels, and from MMLU to one domain of it."""
    old, old_features = load("routellm_mmlu", (WEAK, STRONG), prompts)
    new, new_features = load("routellm_gsm8k", (WEAK, STRONG), None)
    found = transfer_results(old, old_features, new, new_features, sizes=(50, 100, 300), draws=30, resamples=resamples)
    domains = domain_results(old, old_features, n_labels=100, draws=30, resamples=resamples)
    return found | {"domains": domains}


def many_models(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure ten models of MMLU-Pro at equal quality and at equal cost, on random folds and on categories left out."""
    models = tuple(PRICES_USD)
    outcomes, features = load("mmlu_pro", models, prompts)
    found: dict[str, Any] = {"prices_usd_per_million_tokens": PRICES_USD, "splits": {}}
    splits: tuple[Split, ...] = ("random", "group")
    for split in splits:
        fold = split_folds(outcomes, FOLDS, split)
        costs, expected = _costs(outcomes, fold)
        table = Table(outcomes.scores, costs, expected, fold, group_numbers(outcomes.texts))
        routers = {
            "probe": 1.0 - probe_risk(outcomes, features, fold),
            "per_group_best": group_means(outcomes.scores, np.array(outcomes.groups), fold),
            "oracle": outcomes.scores,
        }
        found["splits"][split] = many_model_results(table, models, routers, resamples=resamples)
    return found


def held_out_groups(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure policies as `elle tune` writes them on whole groups that neither probe nor policy has seen."""
    pair = {
        "loss at most 0.02": Target("max_loss", 0.02),
        "loss at most 0.05": Target("max_loss", 0.05),
        "strong share at most 0.5": Target("max_strong_share", 0.5),
    }
    # The last one leaves room down to the third best model.
    many = {f"loss at most {limit:g}": Target("max_loss", limit) for limit in (0.02, 0.05, 0.15)}
    rest = {"folds": FOLDS, "draws": 10 * resamples}
    ten, features = load("mmlu_pro", tuple(PRICES_USD), prompts)
    ten = replace(ten, output_tokens=_output_tokens(ten))
    prices = {
        model: PricedModel(input_usd_per_million_tokens=asked, output_usd_per_million_tokens=answered)
        for model, (asked, answered) in PRICES_USD.items()
    }
    return {
        "mmlu": held_out_results(*load("routellm_mmlu", (WEAK, STRONG), prompts), pair, **rest),
        "mmlu_pro": held_out_results(*load("mmlu_pro", (PRO_WEAK, PRO_STRONG), prompts), pair, **rest),
        "ten_models": held_out_results(ten, features, many, prices=prices, reference="gemini-3.1-pro", **rest),
    }


def tasks(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure puzzle tasks that are left out whole, without labels and with one to five labels of each."""
    outcomes = read_outcomes(DATA / "pool" / "reasoning_gym.parquet").complete_rows()
    if prompts is not None:
        outcomes = outcomes.take(np.sort(np.random.default_rng(0).permutation(len(outcomes))[:prompts]))
    return task_results(outcomes, FeatureCache().features(MINILM_L6, outcomes.texts), resamples=resamples)


def new_model(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure models of MMLU-Pro that join a probe of the others from 10 to 500 labels."""
    return new_model_results(*load("mmlu_pro", tuple(PRICES_USD), prompts), resamples=resamples)


def default(prompts: int | None, resamples: int) -> dict[str, Any]:
    """Measure the embedded default on files left out whole and on everyday prompts, always on all of them."""
    return measure()


def _output_tokens(outcomes: Outcomes) -> FloatArray:
    """Return the data's estimates of the length of every answer, (n, m)."""
    import pyarrow.parquet as pq

    columns = pq.read_table(DATA / "mmlu_pro.parquet", columns=["prompt_id", "model", "output_tokens_est"]).to_pydict()
    length = {
        (prompt, model): tokens for prompt, model, tokens in zip(*(columns[name] for name in columns), strict=True)
    }
    return np.array([[length[prompt, model] for model in outcomes.models] for prompt in outcomes.ids], dtype=float)


def _costs(outcomes: Outcomes, fold: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the cost of every answer, and the cost that could be expected of it, (n, m) USD.

    Input tokens are characters / 4, output tokens the data's estimate, in expectation the model's mean on other folds.
    """
    output = _output_tokens(outcomes)
    usual = np.empty(output.shape)
    for number in np.unique(fold):
        usual[fold == number] = output[fold != number].mean(axis=0)
    characters = np.array([[len(text)] for text in outcomes.texts], dtype=float)
    price = np.array([PRICES_USD[model] for model in outcomes.models]) / 1e6
    asked = characters / 4 * price[:, 0]
    return asked + output * price[:, 1], asked + usual * price[:, 1]


PARTS: dict[str, Callable[[int | None, int], dict[str, Any]]] = {
    "mmlu": mmlu,
    "gsm8k": gsm8k,
    "mmlu_pro": mmlu_pro,
    "transfer": transfer,
    "many_models": many_models,
    "held_out_groups": held_out_groups,
    "tasks": tasks,
    "new_model": new_model,
    "default": default,
}


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
