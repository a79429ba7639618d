"""Fit the gate by which an encoder leaves out asides (`probes.asides`).

It is a logistic regression on the runs of characters of single sentences. Asides are ours (`asides`). The other
sentences are of prompts of the default's fit, their last words, and requests of ours in languages that these lack. Only
weights are kept of them. Asides and others weigh the same within each language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from benchmarks.default_probe.anchors import Anchors
from benchmarks.default_probe.asides import aside_patterns, request_patterns
from benchmarks.default_probe.sources import TierRows
from probes.asides.gate import BITS, GATE_FILE, AsideGate, runs_of, words_of
from probes.asides.reading import LONGEST_ASIDE, sentences_of, unmarked_ends

FloatArray = npt.NDArray[np.float64]

#: Prompts of each source, and draws of each pattern of asides and of requests.
PROMPTS, ASIDE_DRAWS, REQUEST_DRAWS = 400, 40, 25

#: The penalty of the squared weights, where all sentences together weigh 1.
PENALTY = 1e-5

#: The share of the sentences of prompts left out that may be taken for asides. A file counts as the root of its rows.
FALSE_ASIDES = 0.12

#: Files that are not in English.
_LANGUAGES = {"shaberi_gpt41": "ja", "shaberi_gpt4turbo": "ja", "gaokao": "zh"}

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Sentences:
    """Holds the n sentences that the gate is fitted on, and says which of them are asides.

    Attributes:
        texts: (n,). sort: (n,) of the aside, "" for a sentence that belongs to a request.
        language: (n,). source: (n,) a file, a pattern, or the last words of sentences of a file.
        unit: (n,) what is left out together: a pattern, or a single prompt.
    """

    texts: list[str]
    sort: npt.NDArray[np.str_]
    language: npt.NDArray[np.str_]
    source: npt.NDArray[np.str_]
    unit: npt.NDArray[np.str_]

    @property
    def is_aside(self) -> npt.NDArray[np.bool_]:
        """Return which sentences (n,) are asides."""
        return self.sort != ""

    @property
    def runs(self) -> csr_matrix:
        """Return the number of each run of characters in each sentence, over the root of the number of all its runs."""
        found = [np.concatenate(runs_of(words_of(text))) for text in self.texts]
        counts = np.array([len(one) for one in found])
        data = np.repeat(1.0 / np.sqrt(counts), counts)
        matrix = csr_matrix((data, np.concatenate(found), np.cumsum([0, *counts])), shape=(len(found), 1 << BITS))
        matrix.sum_duplicates()
        return matrix

    def weights(self) -> FloatArray:
        """Return the weight of each sentence (n,), which sum to 1.

        A language weighs as the root of its sentences, half of it for asides. A source weighs as the root of its own.
        """
        weight = np.zeros(len(self.texts))
        for language in np.unique(self.language):
            own = self.language == language
            for side in (True, False):
                picked = own & (self.is_aside == side)
                _, number, count = np.unique(self.source[picked], return_inverse=True, return_counts=True)
                share = 1.0 / np.sqrt(count[number])
                weight[picked] = np.sqrt(own.sum()) * share / share.sum()
        return np.asarray(weight / weight.sum())


def learn_gate(rows: TierRows, anchors: Anchors) -> dict[str, object]:
    """Fit the gate, write it to its file, and return its digest and how often it is right on what was left out."""
    data = read_sentences(rows, anchors)
    runs, scores = data.runs, left_out_scores(data)
    cut = choose_cut(data, scores)
    gate = _gate(*_fit(runs, data.is_aside, data.weights()), cut)
    GATE_FILE.write_bytes(gate.contents)
    return {"digest": gate.digest, "n_sentences": len(data.texts), **left_out_figures(data, scores > cut)}


def left_out_figures(data: Sentences, taken: npt.NDArray[np.bool_]) -> dict[str, object]:
    """Return the shares that are taken for asides: of asides by sort and by language, and of other sentences."""
    aside = data.is_aside

    def shares(labels: npt.NDArray[np.str_], picked: npt.NDArray[np.bool_]) -> dict[str, float]:
        return {str(one): round(float(taken[picked & (labels == one)].mean()), 3) for one in np.unique(labels[picked])}

    return {
        "asides_by_sort": shares(data.sort, aside),
        "asides_by_language": shares(data.language, aside),
        "others_by_source": shares(data.source, ~aside),
    }


def read_sentences(rows: TierRows, anchors: Anchors, seed: int = 0) -> Sentences:
    """Return asides, requests of ours, and sentences of prompts with some of their last words."""
    rng = np.random.default_rng(seed)
    found: dict[str, tuple[str, str, str, str]] = {}
    for number, pattern in enumerate(aside_patterns()):
        for _ in range(ASIDE_DRAWS):
            unit = f"aside {number}"
            found.setdefault(pattern.draw(rng), (pattern.sort, pattern.language, unit, unit))
    for number, pattern in enumerate(request_patterns()):
        for _ in range(REQUEST_DRAWS):
            found.setdefault(pattern.draw(rng), ("", pattern.language, "requests", f"request {number}"))
    for sentence, language, source, unit in _sentences_of_prompts(rows, anchors, rng):
        found.setdefault(sentence, ("", language, source, unit))
        if ends := unmarked_ends(sentence):
            begin = ends[int(rng.integers(len(ends)))]
            found.setdefault(sentence[begin:], ("", language, f"end of {source}", unit))
    return Sentences(list(found), *(np.array(column) for column in zip(*found.values(), strict=True)))


def _sentences_of_prompts(
    rows: TierRows, anchors: Anchors, rng: np.random.Generator
) -> Iterator[tuple[str, str, str, str]]:
    """Yield sentences with their language, their source and the number of their prompt."""
    texts = (*rows.texts, *anchors.texts)
    sources = np.concatenate([rows.source, np.char.add("anchors ", anchors.language)])
    for source in np.unique(sources).tolist():
        language = source.removeprefix("anchors ") if source.startswith("anchors ") else _LANGUAGES.get(source, "en")
        for row in rng.permutation(np.flatnonzero(sources == source))[:PROMPTS]:
            parts = [texts[row][slice(*part)][:LONGEST_ASIDE] for part in sentences_of(texts[row])]
            for part in sorted({parts[0], parts[-1], parts[int(rng.integers(len(parts)))]}):
                yield part, language, source, f"prompt {row}"


def _fit(runs: csr_matrix, is_aside: npt.NDArray[np.bool_], weight: FloatArray) -> tuple[FloatArray, float]:
    """Return the weight of each run of characters, and the intercept."""
    sign = np.where(is_aside, 1.0, -1.0)

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        coef, intercept = theta[:-1], theta[-1]
        margin = sign * (runs @ coef + intercept)
        pull = -weight * sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        loss = float(weight @ np.logaddexp(0.0, -margin)) + PENALTY / 2 * float(coef @ coef)
        return loss, np.append(runs.T @ pull + PENALTY * coef, pull.sum())

    start = np.zeros(runs.shape[1] + 1)
    theta = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 150}).x
    return theta[:-1], float(theta[-1])


def _gate(coef: FloatArray, intercept: float, cut: float) -> AsideGate:
    """Return the gate of these weights that takes for asides what scores above `cut`."""
    scale = float(np.abs(coef).max()) / np.iinfo(np.int16).max
    return AsideGate(np.rint(coef / scale).astype(np.int16), scale, intercept - cut)


def left_out_scores(data: Sentences, seed: int = 0) -> FloatArray:
    """Return the score (n,) of each sentence. The gate that gives it was fitted without its pattern or prompt."""
    units, number = np.unique(data.unit, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(units)) % _FOLDS)[number]
    runs, weight = data.runs, data.weights()
    scores = np.empty(len(fold))
    for one in range(_FOLDS):
        rest = fold != one
        coef, intercept = _fit(runs[rest], data.is_aside[rest], weight[rest] / weight[rest].sum())
        scores[~rest] = runs[~rest] @ coef + intercept
    return scores


def choose_cut(data: Sentences, scores: FloatArray) -> float:
    """Return the score that only FALSE_ASIDES of the whole sentences of prompts exceed, by a gate without them."""
    own = ~data.is_aside & (data.source != "requests") & ~np.char.startswith(data.source, "end of ")
    _, number, count = np.unique(data.source[own], return_inverse=True, return_counts=True)
    weight = 1.0 / np.sqrt(count[number])
    order = np.argsort(-scores[own])
    beyond = np.cumsum(weight[order]) / weight.sum()
    return float(scores[own][order][int(np.searchsorted(beyond, FALSE_ASIDES))])
