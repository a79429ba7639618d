"""Define routers to compare a probe with, such as chance, prompt length, TF-IDF, nearest neighbours and LiteLLM.

Each learns from the labels of the training rows only. Ridge, kNN and logistic regression choose their one setting on a
fifth of the training texts and are then fitted to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from router.tuning.judging.litellm_baseline import Kind, litellm_difficulty
from router.tuning.judging.ranking import RouterScores

FloatArray = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Setting = TypeVar("Setting", int, float)

_WORD = r"(?u)\b\w+\b|[^\w\s]"


@dataclass(frozen=True)
class Prompts:
    """Holds n prompts, with everything that a baseline may look at.

    Attributes:
        texts, groups: n each; an empty text stands for an unknown group.
        features: (n, d), the embeddings that the probe uses too.
        scores: (n, 2) of the weak and the strong model; only the oracle looks at those of test prompts.
    """

    texts: Sequence[str]
    groups: Sequence[str]
    features: npt.NDArray[np.float32]
    scores: FloatArray

    def take(self, rows: Bools) -> Prompts:
        """Return the prompts of these rows only."""
        at = np.flatnonzero(rows).tolist()
        return Prompts(
            [self.texts[i] for i in at], [self.groups[i] for i in at], self.features[rows], self.scores[rows]
        )


class Baseline(Protocol):
    """The interface of a router that a probe is compared with.

    `trained` says whether it uses labels of the training rows.
    """

    name: str
    trained: ClassVar[bool]

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """Return gain and difficulty of each test prompt; neither needs to be a probability."""
        ...


class Random:
    """Routes at random: it scores each text by its digest, which has nothing to do with how hard the text is."""

    name = "random"
    trained: ClassVar[bool] = False

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        return _from_difficulty(_uniform(test.texts))


class PromptLength:
    """Routes by length: it takes longer prompts for harder ones."""

    name = "prompt_length"
    trained: ClassVar[bool] = False

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        return _from_difficulty(np.log1p(np.array([float(len(text)) for text in test.texts])))


class LiteLLM:
    """Routes by LiteLLM's complexity router, with one of its two offline classifiers."""

    trained: ClassVar[bool] = False

    def __init__(self, kind: Kind) -> None:
        self.name = f"litellm_{kind}"
        self._kind = kind

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        return _from_difficulty(litellm_difficulty(self._kind, test.texts))


class GroupMean:
    """Predicts the mean losses of the prompt's group, shrunk to those of all prompts by the weight of ten prompts.

    As a ranking it sends the groups that gain most to the strong model first: the "best model per data set" that a
    person with a spreadsheet would choose. A group that was not in training has the gain 0. If whole groups are left
    out, all gains are therefore 0, which is worth an APGR of 0.5. The mean of the other groups would be worth less: if
    a group gains much, the mean of the others is low just because this group is missing from it. The gain is also 0 if
    all training prompts are of one group.
    """

    name = "per_group_best"
    trained: ClassVar[bool] = True

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        overall = 1.0 - train.scores.mean(axis=0)
        groups = np.array(train.groups)
        means = {}
        for group in set(test.groups):
            rows = groups == group
            shrunk = (10.0 * overall + (1.0 - train.scores[rows]).sum(axis=0)) / (10.0 + rows.sum())
            means[group] = shrunk if rows.any() and not rows.all() else np.array([0.5, 0.5])
        return _from_losses(np.array([means[group] for group in test.groups]))


class TfidfRidge:
    """Predicts the losses by ridge regression on TF-IDF of words and pairs of words (scikit-learn)."""

    name = "tfidf_ridge"
    trained: ClassVar[bool] = True

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import Ridge

        # One-letter words and signs count, because they mark mathematics. If texts are few, no word may occur twice.
        often = 2 if len(train.texts) >= 100 else 1
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=often, token_pattern=_WORD)
        X, X_test = words.fit_transform(train.texts), words.transform(test.texts)
        losses = 1.0 - train.scores

        def predict(rows: Bools, at: Any, alpha: float) -> FloatArray:
            ridge = Ridge(alpha=alpha, solver="lsqr", tol=1e-3)
            return np.asarray(ridge.fit(X[rows], losses[rows]).predict(at))

        alpha = _best((1.0, 3.0, 10.0, 30.0), lambda a, fit, held: predict(fit, X[held], a), train)
        return _from_losses(predict(np.ones(len(losses), dtype=bool), X_test, alpha))


class NearestNeighbours:
    """Predicts the mean losses of the k most similar training prompts, by cosine of the standardised embeddings."""

    name = "knn"
    trained: ClassVar[bool] = True

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        X, X_test = (_unit(features) for features in _standardised(train, test))
        losses = 1.0 - train.scores

        def predict(rows: Bools, at: npt.NDArray[np.float32], k: int) -> FloatArray:
            kept, k = losses[rows], min(k, int(rows.sum()))
            found = np.empty((len(at), 2))
            for start in range(0, len(at), 500):
                near = np.argpartition(-(at[start : start + 500] @ X[rows].T), k - 1, axis=1)[:, :k]
                found[start : start + 500] = kept[near].mean(axis=1)
            return found

        k = _best((10, 30, 100, 300), lambda k, fit, held: predict(fit, X[held], k), train)
        return _from_losses(predict(np.ones(len(losses), dtype=bool), X_test, k))


class Logistic:
    """Predicts each model's failure by logistic regression on the embeddings (scikit-learn).

    Scores between 0 and 1 enter as weights.
    """

    name = "logistic"
    trained: ClassVar[bool] = True

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        X, X_test = _standardised(train, test)

        def predict(rows: Bools, at: npt.NDArray[np.float32], c: float) -> FloatArray:
            return np.stack([_logistic(X[rows], 1.0 - y[rows], at, c) for y in train.scores.T], axis=1)

        c = _best((1e-5, 1e-4, 1e-3), lambda c, fit, held: predict(fit, X[held], c), train)
        return _from_losses(predict(np.ones(len(X), dtype=bool), X_test, c))


class Oracle:
    """Routes with knowledge of how both models did, so that no router can be better."""

    name = "oracle"
    trained: ClassVar[bool] = False

    def score(self, train: Prompts, test: Prompts) -> RouterScores:
        """See `Baseline`."""
        return _from_losses(1.0 - test.scores)


def all_baselines() -> tuple[Baseline, ...]:
    """Return every baseline, in the order of the tables."""
    return (
        *quick_baselines()[:-1],
        TfidfRidge(),
        NearestNeighbours(),
        Logistic(),
        LiteLLM("heuristic"),
        LiteLLM("heuristic_v2"),
        Oracle(),
    )


def quick_baselines() -> tuple[Baseline, ...]:
    """Return the baselines that take no time and need no other library."""
    return Random(), PromptLength(), GroupMean(), Oracle()


def _from_difficulty(score: FloatArray) -> RouterScores:
    """Return the scores of a router that knows only how hard (n,) each prompt is, and takes that for the gain."""
    return RouterScores(score, difficulty=score)


def _from_losses(predicted: FloatArray) -> RouterScores:
    """Return the scores of a router that predicts the losses (n, 2) of the weak and the strong model."""
    return RouterScores(predicted[:, 0] - predicted[:, 1], difficulty=predicted[:, 0])


def _uniform(texts: Sequence[str]) -> FloatArray:
    """Return for each text a number in [0, 1) that depends on the text only."""
    digests = (blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in texts)
    return np.array([int.from_bytes(digest) / 2.0**64 for digest in digests])


def _best(
    settings: Sequence[Setting], predict: Callable[[Setting, Bools, Bools], FloatArray], train: Prompts
) -> Setting:
    """Return the setting with the least squared error of the gains on a fifth of the texts, kept apart."""
    held = _uniform(train.texts) < 0.2
    if held.all() or not held.any():
        return settings[0]
    truth = train.scores[held, 1] - train.scores[held, 0]
    errors = []
    for setting in settings:
        predicted = predict(setting, ~held, held)
        errors.append(float(np.mean((predicted[:, 0] - predicted[:, 1] - truth) ** 2)))
    return settings[int(np.argmin(errors))]


def _standardised(train: Prompts, test: Prompts) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    mean, spread = train.features.mean(axis=0), train.features.std(axis=0)
    # A dead dimension varies by rounding only. Dividing by so small a spread would make it outweigh all others.
    scale = np.where(spread > 1e-6 * spread.max(initial=0.0), spread, np.inf)
    return (train.features - mean) / scale, (test.features - mean) / scale


def _unit(X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12))


def _logistic(X: npt.NDArray[np.float32], loss: FloatArray, at: npt.NDArray[np.float32], c: float) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    if loss.min() == loss.max():
        return np.full(len(at), loss[0])
    rows = np.concatenate([np.flatnonzero(loss > 0), np.flatnonzero(loss < 1)])
    labels = np.repeat([1, 0], [int((loss > 0).sum()), int((loss < 1).sum())])
    weights = np.where(labels == 1, loss[rows], 1.0 - loss[rows])
    if labels.min() == labels.max():
        return np.full(len(at), loss.mean())
    model = LogisticRegression(C=c, max_iter=300, tol=1e-3).fit(X[rows], labels, sample_weight=weights)
    return np.asarray(model.predict_proba(at)[:, 1], dtype=np.float64)
