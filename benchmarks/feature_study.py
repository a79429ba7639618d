"""Compare which features of one MiniLM pass rank prompts best by gain: the table of benchmarks/studies/features.md.

Run from the project root:

    python -m benchmarks.feature_study --cache DIR [--data DIR] [--encoder ID_OR_DIR] [--recipes "A;B"]

Everything is cross-validated by prompt text. Standardisation, landmarks and the penalty (exact leave-one-out)
are learned inside each training part. DIR keeps the pooled hidden states, keyed by a digest of the prompts,
so that a second run does not encode again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.feature_recipes import MAX_TOKENS, RECIPES, REFERENCE, Array, Floats, Recipe, Task, design

WEAK, STRONG = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

ALPHAS = np.logspace(-4, 0.5, 10)  # penalty per training row, for features of total variance of about one

BOOTSTRAP_DRAWS = 500


def read_scores(path: Path) -> tuple[list[str], NDArray[np.str_], Floats, Floats]:
    """Return the distinct prompts of a parquet file, their groups, mean scores (n, 2) and numbers of rows (n,)."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path, columns=["prompt", "group", "model", "score"]).to_pydict()
    index = {prompt: i for i, prompt in enumerate(dict.fromkeys(columns["prompt"]))}
    total, count = np.zeros((len(index), 2)), np.zeros((len(index), 2))
    groups = [""] * len(index)
    for prompt, group, model, score in zip(*columns.values(), strict=True):
        row, column = index[prompt], (WEAK, STRONG).index(model)
        total[row, column] += score
        count[row, column] += 1
        groups[row] = group
    return list(index), np.array(groups), total / count, count[:, 0]


def encode(prompts: list[str], encoder: str) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return the mean and the maximum over tokens of every layer, and the numbers of tokens. No prompt is padded."""
    import torch
    from rich.progress import track
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).eval()
    ids = [tokenizer(p, truncation=True, max_length=MAX_TOKENS)["input_ids"] for p in prompts]
    shape = (len(prompts), model.config.num_hidden_layers + 1, model.config.hidden_size)
    mean, peak = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batches = list(_equal_length_chunks(order, ids, size=16))
    with torch.inference_mode():
        for rows in track(batches, description="encoding"):
            x = torch.tensor([ids[i] for i in rows])
            states = model(input_ids=x, attention_mask=torch.ones_like(x), output_hidden_states=True).hidden_states
            for layer, state in enumerate(states):
                mean[rows, layer], peak[rows, layer] = state.mean(1).numpy(), state.amax(1).numpy()
    return mean, peak, np.array([len(i) for i in ids])


def _equal_length_chunks(order: list[int], ids: list[list[int]], size: int) -> Iterable[list[int]]:
    chunk: list[int] = []
    for row in order:
        if chunk and (len(chunk) == size or len(ids[row]) != len(ids[chunk[0]])):
            yield chunk
            chunk = []
        chunk.append(row)
    yield chunk


def load_features(name: str, data: Path, cache: Path, encoder: str) -> Task:
    """Return scores and pooled hidden states of one data set, from the cache if it has them."""
    prompts, groups, scores, weight = read_scores(data / f"{name}.parquet")
    digest = hashlib.sha256("\0".join([str(MAX_TOKENS), *prompts]).encode()).hexdigest()[:16]
    file = cache / f"{name}-{digest}.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        mean, peak, tokens = encode(prompts, encoder)
        np.savez(file, mean=mean, peak=peak, tokens=tokens)
    with np.load(file) as stored:
        return Task(prompts, groups, scores, weight, stored["mean"], stored["peak"], stored["tokens"])


# --- fitting ---


def ridge(X: Array, Y: Floats) -> Callable[[Array], Floats]:
    """Fit a ridge of Y (n, m) on X (n, d); each target has the penalty of ALPHAS that is best with one row left out."""
    n = len(X)
    centre, base = X.mean(axis=0), Y.mean(axis=0)
    Z = X - centre
    values, vectors = np.linalg.eigh((Z.T @ Z).astype(np.float64))
    scores = Z @ vectors.astype(np.float32)
    projected = scores.T.astype(np.float64) @ (Y - base)
    squares = scores**2
    errors = np.empty((len(ALPHAS), Y.shape[1]))
    for i, alpha in enumerate(ALPHAS):
        shrunk = 1 / (np.maximum(values, 0) + alpha * n)
        hat = squares @ shrunk.astype(np.float32) + 1 / n
        residual = Y - base - scores @ (shrunk[:, None] * projected).astype(np.float32)
        errors[i] = ((residual / (1 - hat)[:, None]) ** 2).mean(axis=0)
    chosen = ALPHAS[errors.argmin(axis=0)]
    coef = vectors @ (projected / (np.maximum(values, 0)[:, None] + chosen * n))
    return lambda new: (new - centre) @ coef + base


def targets(task: Task) -> Floats:
    """Return the gain and the weak model's loss, (n, 2)."""
    return np.stack([task.gain, 1 - task.scores[:, 0]], axis=1)


def fold_of_prompt(task: Task, seed: int) -> NDArray[np.int64]:
    """Return for each prompt one of five folds, by a hash of its text, (n,)."""
    codes = (hashlib.blake2b(f"{seed}:{p}".encode(), digest_size=8).digest() for p in task.prompts)
    return np.array([int.from_bytes(c, "little") % 5 for c in codes])


def fold_of_group(task: Task) -> NDArray[np.int64]:
    """Return for each prompt one of ten folds, (n,); a group is in one fold whole."""
    names = sorted(set(task.groups.tolist()), key=lambda g: hashlib.blake2b(g.encode(), digest_size=8).digest()[::-1])
    return np.array([names.index(g) % 10 for g in task.groups])


Predictor = Callable[[Task, NDArray[np.bool_]], Floats]


def probe(recipe: Recipe, task: Task) -> Predictor:
    """Fit a probe on the marked rows, and return its predictions for all rows, (n, 2)."""
    raw = [block.columns(task) for block in recipe.blocks]

    def predict(task: Task, train: NDArray[np.bool_]) -> Floats:
        X = design(recipe, raw, train)
        return ridge(X[train], targets(task)[train])(X)

    return predict


def tfidf_ridge(task: Task, train: NDArray[np.bool_]) -> Floats:
    """Return a baseline: a ridge on words and bigrams; a fifth of the training rows chooses its penalty."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    rows, y = np.flatnonzero(train), targets(task)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    vectors.fit([task.prompts[i] for i in rows])
    X = vectors.transform(task.prompts)
    inner, held = rows[np.arange(len(rows)) % 5 > 0], rows[::5]

    def miss(alpha: float) -> float:
        fitted = Ridge(alpha=alpha, solver="sparse_cg").fit(X[inner], y[inner, 0])
        return float(((fitted.predict(X[held]) - y[held, 0]) ** 2).mean())

    best = min((1.0, 3.0, 10.0, 30.0), key=miss)
    return np.asarray(Ridge(alpha=best, solver="sparse_cg").fit(X[rows], y[rows]).predict(X))


def nearest(task: Task, train: NDArray[np.bool_]) -> Floats:
    """Return a baseline: the mean of the 50 nearest training prompts, by the cosine of the last layer's mean."""
    unit = task.mean[:, -1] / np.linalg.norm(task.mean[:, -1], axis=1, keepdims=True)
    near = np.argpartition(-(unit @ unit[train].T), 50, axis=1)[:, :50]
    return np.asarray(targets(task)[train][near].mean(axis=1))


BASELINES: dict[str, Predictor] = {"TF-IDF ridge": tfidf_ridge, "kNN (50)": nearest}


def out_of_fold(predict: Predictor, task: Task, folds: NDArray[np.int64]) -> Floats:
    """Return predictions (n, 2), each by the fit that did not see its fold."""
    result = np.zeros((len(folds), 2))
    for fold in np.unique(folds):
        result[folds == fold] = predict(task, folds != fold)[folds == fold]
    return result


# --- figures ---


def apgr(score: Floats, gain: Floats, weight: Floats) -> float:
    """Return the APGR: the mean gap recovered over all shares of strong calls. Random has 0.5."""
    _, tie = np.unique(-score, return_inverse=True)
    calls, recovered = np.bincount(tie, weight), np.bincount(tie, gain * weight)
    x, y = np.r_[0, calls.cumsum()] / calls.sum(), np.r_[0, recovered.cumsum()] / recovered.sum()
    return float(np.trapezoid(y, x))


def bootstrap(runs: list[Floats], task: Task) -> Floats:
    """Return the APGR of each draw, averaged over the runs. Draw i has the same prompts for all runs."""
    draws = np.random.Generator(np.random.PCG64(0))
    n, result = len(task.gain), np.zeros(BOOTSTRAP_DRAWS)
    orders = [np.argsort(-run[:, 0], kind="stable") for run in runs]
    for i in range(BOOTSTRAP_DRAWS):
        weight = task.weight * np.bincount(draws.integers(0, n, n), minlength=n)
        for order in orders:
            x, y = weight[order].cumsum(), (weight * task.gain)[order].cumsum()
            result[i] += np.trapezoid(y / y[-1], x / x[-1]) / len(orders)
    return result


def auroc(score: Floats, positive: Floats) -> float:
    """Return the probability that a failed prompt scores above a solved one."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive > 0.5, score))


def study(name: str, mmlu: Task, gsm8k: Task, seeds: range) -> dict[str, object]:
    """Return all figures of one recipe or baseline, with its out-of-fold runs for paired intervals."""
    recipe = RECIPES.get(name)
    both: list[Predictor] = [BASELINES[name]] * 2 if recipe is None else [probe(recipe, mmlu), probe(recipe, gsm8k)]
    runs = {
        "mmlu": [out_of_fold(both[0], mmlu, fold_of_prompt(mmlu, s)) for s in seeds],
        "held-out": [out_of_fold(both[0], mmlu, fold_of_group(mmlu))],
        "gsm8k": [out_of_fold(both[1], gsm8k, fold_of_prompt(gsm8k, s)) for s in seeds],
    }
    tasks = {"mmlu": mmlu, "held-out": mmlu, "gsm8k": gsm8k}
    row: dict[str, object] = {
        split: float(np.mean([apgr(run[:, 0], tasks[split].gain, tasks[split].weight) for run in parts]))
        for split, parts in runs.items()
    }
    row["transfer"] = transfer(name, mmlu, gsm8k)
    risk = np.mean([run[:, 1] for run in runs["mmlu"]], axis=0)
    failed = 1 - mmlu.scores[:, 0]
    row["weak AUROC"] = auroc(risk, failed)
    row["weak Brier"] = float(((np.clip(risk, 0, 1) - failed) ** 2).mean())
    row["draws"] = {split: bootstrap(parts, tasks[split]) for split, parts in runs.items()}
    return row


def joined(a: Task, b: Task) -> Task:
    """Return a task that holds the prompts of both, one below the other."""
    fields = ("groups", "scores", "weight", "mean", "peak", "tokens")
    parts = {field: np.concatenate([getattr(a, field), getattr(b, field)]) for field in fields}
    return Task(prompts=a.prompts + b.prompts, **parts)


def transfer(name: str, mmlu: Task, gsm8k: Task) -> float:
    """Return the APGR on GSM8K of a fit on MMLU alone."""
    task = joined(mmlu, gsm8k)
    train = np.arange(len(task.prompts)) < len(mmlu.prompts)
    predict = probe(RECIPES[name], task) if name in RECIPES else BASELINES[name]
    return apgr(predict(task, train)[~train][:, 0], gsm8k.gain, gsm8k.weight)


SPLITS = ("mmlu", "held-out", "gsm8k")


def line(name: str, row: dict[str, object], reference: dict[str, object] | None) -> str:
    """Return one row of the table: the figures, and their differences from the reference recipe with 95 % intervals."""
    cells = [name]
    for split in SPLITS:
        cell = f"{row[split]:.3f}"
        if reference is not None and reference is not row:
            difference = row["draws"][split] - reference["draws"][split]  # type: ignore[index]
            low, high = np.percentile(difference, [2.5, 97.5])
            cell += f" ({row[split] - reference[split]:+.3f}: {low:+.3f} to {high:+.3f})"  # type: ignore[operator]
        cells.append(cell)
    return " | ".join([*cells, *(f"{row[k]:.3f}" for k in ("transfer", "weak AUROC", "weak Brier"))])


def main() -> None:
    """Print the table, and write the figures as JSON if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--encoder", default=DEFAULT_ENCODER)
    parser.add_argument("--seeds", type=int, default=3, help="how many fold assignments")
    parser.add_argument("--recipes", help="names separated by ';' (default: all)")
    parser.add_argument("--reference", default=REFERENCE, help="the recipe all others are compared with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"--data must be the folder of the routing outcomes, got {options.data}: give its path")
    mmlu, gsm8k = (
        load_features(f"routellm_{d}", options.data, options.cache, options.encoder) for d in ("mmlu", "gsm8k")
    )
    known = [*BASELINES, *RECIPES]
    wanted = options.recipes.split(";") if options.recipes else known
    if unknown := {options.reference, *wanted} - set(known):
        sys.exit(f"--recipes and --reference must be among {known}, got {sorted(unknown)}")
    rows: dict[str, dict[str, object]] = {}
    print(" | ".join(["features", *SPLITS, "transfer", "weak AUROC", "weak Brier"]), flush=True)
    for name in dict.fromkeys([options.reference, *wanted]):
        rows[name] = study(name, mmlu, gsm8k, range(options.seeds))
        print(line(name, rows[name], rows[options.reference]), flush=True)
    if options.json:
        figures = {name: {k: v for k, v in row.items() if k != "draws"} for name, row in rows.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
