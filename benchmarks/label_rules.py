"""Define rules that choose which prompts of a pool to label first, for benchmarks/label_study.py to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.regression.solution import DEFAULT_ALPHAS, choose_alpha

Floats = npt.NDArray[np.float64]

Rows = npt.NDArray[np.int64]

RANDOM = "random"


@dataclass(frozen=True)
class Pool:
    """Holds what a rule may look at: features (n, d) standardised over the pool, the number of each group, and chance.

    principal: (n, 100), coordinates along the largest principal components. leverage: (n,). losses: (n, 2), for rules
    that buy labels in two steps; they look up those of the first step only.
    """

    Z: npt.NDArray[np.float32]
    principal: npt.NDArray[np.float32]
    leverage: Floats
    groups: Rows
    losses: Floats
    raw: npt.NDArray[np.float32]
    rng: np.random.Generator


Rule = Callable[[Pool, int], Rows]


# --- rules ---


def uniform(pool: Pool, k: int) -> Rows:
    """Choose every prompt with the same probability."""
    return pool.rng.choice(len(pool.Z), k, replace=False)


def by_group(pool: Pool, k: int) -> Rows:
    """Draw systematically along the groups, so that each gets its share of the labels."""
    return _systematic(pool, pool.groups, k)


def one_per_cluster(pool: Pool, k: int) -> Rows:
    """Cluster by k-means into k clusters, and choose of each the member nearest to its centre."""
    centres, home = _kmeans(pool.principal[:, :50], k, pool.rng)
    distance = ((pool.principal[:, :50] - centres[home]) ** 2).sum(axis=1)
    order = np.lexsort((distance, home))
    return order[np.unique(home[order], return_index=True)[1]]


def random_per_cluster(pool: Pool, k: int) -> Rows:
    """Cluster by k-means into k clusters, and choose of each a random member."""
    _, home = _kmeans(pool.principal[:, :50], k, pool.rng)
    order = pool.rng.permutation(len(home))
    return order[np.unique(home[order], return_index=True)[1]]


def strata_of_clusters(pool: Pool, k: int) -> Rows:
    """Cluster by k-means into 20 clusters, of which each gets its share of the labels at random."""
    _, home = _kmeans(pool.principal[:, :50], 20, pool.rng)
    return _systematic(pool, home, k)


def k_center(pool: Pool, k: int) -> Rows:
    """Choose the prompt farthest from those chosen, again and again from a random start (Sener and Savarese 2018)."""
    Z = pool.Z
    chosen = [int(pool.rng.integers(len(Z)))]
    squares = np.einsum("ij,ij->i", Z, Z)
    nearest = np.full(len(Z), np.inf)
    while len(chosen) < k:
        last = chosen[-1]
        nearest = np.minimum(nearest, squares + squares[last] - 2 * Z @ Z[last])
        nearest[chosen] = -np.inf
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen)


def top_leverage(pool: Pool, k: int) -> Rows:
    """Choose the prompts with the largest leverages."""
    return np.argsort(-pool.leverage, kind="stable")[:k]


def leverage_sampling(pool: Pool, k: int) -> Rows:
    """Draw prompts in proportion to their leverage."""
    h = pool.leverage
    return pool.rng.choice(len(h), k, replace=False, p=h / h.sum())


def d_optimal(components: int | None) -> Rule:
    """Choose rows one by one, each time the one whose prediction is least certain (D-optimality); alpha is 1 or d."""

    def rule(pool: Pool, k: int) -> Rows:
        Z = pool.Z if components is None else pool.principal[:, :components] / np.sqrt(pool.Z.shape[1])
        return _greedy(Z, np.ones(len(Z)), k)

    return rule


def leverage_times_gain(pool: Pool, k: int) -> Rows:
    """Choose a third at random, and the rest by D-optimality times the gain that a fit to it predicts."""
    first = uniform(pool, max(k // 3, 20))
    predict = fast_ridge(pool.raw[first], pool.losses[first])[0]
    loss = predict(pool.raw)
    worth = np.maximum(loss[:, 0] - loss[:, 1], 0.0)
    return _after(pool, first, worth, k)


def leverage_times_uncertainty(pool: Pool, k: int) -> Rows:
    """Choose a third at random, and the rest by D-optimality times p (1 - p) of the weak model's predicted loss p."""
    first = uniform(pool, max(k // 3, 20))
    p = np.clip(fast_ridge(pool.raw[first], pool.losses[first])[0](pool.raw)[:, 0], 0.05, 0.95)
    return _after(pool, first, p * (1 - p), k)


def near_the_threshold(pool: Pool, k: int) -> Rows:
    """Choose a third at random, and the rest at random among the 3k whose predicted gain is nearest to its median."""
    first = uniform(pool, max(k // 3, 20))
    loss = fast_ridge(pool.raw[first], pool.losses[first])[0](pool.raw)
    gain = loss[:, 0] - loss[:, 1]
    near = np.setdiff1d(np.argsort(np.abs(gain - np.median(gain)))[: 3 * k], first)
    return np.concatenate([first, pool.rng.choice(near, k - len(first), replace=False)])


def transductive(pool: Pool, k: int) -> Rows:
    """Choose so that each step lowers the mean variance over the pool most (Yu, Bi and Tresp 2006).

    On 100 principal components, the ridge's alpha their number times their mean variance.
    """
    U = pool.principal
    values = (U**2).mean(axis=0)
    U = U / np.sqrt(values.sum())
    inverse, chosen = np.eye(100), np.empty(k, dtype=np.int64)
    open_ = np.ones(len(U), dtype=bool)
    for step in range(k):
        V = U @ inverse
        worth = (V**2 @ values) / (1 + np.einsum("ij,ij->i", V, U))
        best = int(np.argmax(np.where(open_, worth, -np.inf)))
        chosen[step], open_[best] = best, False
        inverse -= np.outer(V[best], V[best]) / (1 + U[best] @ V[best])
    return chosen


def herding(pool: Pool, k: int) -> Rows:
    """Choose prompts that keep the pool's mean in random Fourier features (herding; Chen, Welling and Smola 2010)."""
    Z = pool.principal[:, :50]
    # The usual width of the kernel: the median distance of two members.
    some = Z[pool.rng.choice(len(Z), 500)]
    width = np.sqrt(np.median(((some[:250] - some[250:]) ** 2).sum(axis=1)))
    angles = Z @ pool.rng.normal(size=(50, 1000)) / width + pool.rng.uniform(0, 2 * np.pi, 1000)
    F = np.cos(angles)
    mean, total, chosen = F.mean(axis=0), np.zeros(1000), []
    for step in range(k):
        score = F @ (mean - total / (step + 1))
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
        total += F[chosen[-1]]
    return np.array(chosen)


RULES: Mapping[str, Rule] = {
    RANDOM: uniform,
    "strata by group": by_group,
    "strata by 20 clusters": strata_of_clusters,
    "k clusters, a random member": random_per_cluster,
    "k clusters, the nearest to the centre": one_per_cluster,
    "kernel herding": herding,
    "k-center": k_center,
    "largest leverage": top_leverage,
    "leverage sampling": leverage_sampling,
    "D-optimal": d_optimal(None),
    "D-optimal on 20 components": d_optimal(20),
    "transductive on 100 components": transductive,
    "D-optimal x predicted gain": leverage_times_gain,
    "D-optimal x uncertainty": leverage_times_uncertainty,
    "near the threshold": near_the_threshold,
}

ONE_AFTER_THE_OTHER = {
    *("kernel herding", "k-center", "largest leverage"),
    *("D-optimal", "D-optimal on 20 components", "transductive on 100 components"),
}


def _kmeans(Z: Floats, k: int, rng: np.random.Generator) -> tuple[Floats, Rows]:
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=1, max_iter=20, random_state=int(rng.integers(2**31))).fit(Z)
    return found.cluster_centers_, found.labels_.astype(np.int64)


def _systematic(pool: Pool, strata: Rows, k: int) -> Rows:
    """Choose every (n / k)-th prompt of the pool in the order of strata, so that shares differ by one label at most."""
    order = np.lexsort((pool.rng.random(len(strata)), strata))
    places = (np.arange(k) + pool.rng.random()) * len(order) / k
    return order[places.astype(np.int64)]


def _greedy(U: Floats, worth: Floats, k: int) -> Rows:
    leverage = np.einsum("ij,ij->i", U, U)
    directions, open_ = np.empty((k, U.shape[1])), np.ones(len(U), dtype=bool)
    chosen = np.empty(k, dtype=np.int64)
    for step in range(k):
        best = int(np.argmax(np.where(open_, worth * np.log1p(leverage), -np.inf)))
        chosen[step], open_[best] = best, False
        z = U[best]
        directions[step] = (z - directions[:step].T @ (directions[:step] @ z)) / np.sqrt(1 + leverage[best])
        leverage = np.maximum(leverage - (U @ directions[step]) ** 2, 0.0)
    return chosen


def _after(pool: Pool, first: Rows, worth: Floats, k: int) -> Rows:
    """Choose `first`, and the rest by D-optimality given it times `worth`."""
    d = pool.Z.shape[1]
    inverse = np.linalg.inv(pool.Z[first].T @ pool.Z[first] + d * np.eye(d))
    U = pool.Z @ np.linalg.cholesky(inverse).astype(np.float32)
    worth = worth.copy()
    worth[first] = -1.0
    return np.concatenate([first, _greedy(U, worth, k - len(first))])


# --- the recipe of `elle fit`, for few labels ---


def fast_ridge(
    X: npt.NDArray[np.float32], Y: Floats, alpha: float | None = None
) -> tuple[Callable[[npt.NDArray[np.float32]], Floats], float]:
    """Fit as `fit_ridge` does, by the k rows instead of the d features; `check_recipe` compares the two."""
    X64 = X.astype(np.float64)
    mean, scale = X64.mean(axis=0), X64.std(axis=0)
    inverse = np.where(scale > 1e-9, 1 / np.maximum(scale, 1e-9), 0.0)
    Z = (X64 - mean) * inverse
    squares, left = np.linalg.eigh(Z @ Z.T)
    varies = squares > 1e-9 * squares[-1]
    squares, left, base = squares[varies], left[:, varies], Y.mean(axis=0)
    projected = left.T @ (Y - base)
    if alpha is None:
        errors = np.empty((len(DEFAULT_ALPHAS), Y.shape[1]))
        for i, one in enumerate(DEFAULT_ALPHAS):
            shrunk = squares / (squares + one)
            hat = 1 / len(Y) + (left**2) @ shrunk
            residual = Y - base - left @ (shrunk[:, None] * projected)
            errors[i] = ((residual / (1 - hat)[:, None]) ** 2).mean(axis=0)
        alpha = float(choose_alpha(DEFAULT_ALPHAS, errors, Y.var(axis=0), False)[0])
    coef = Z.T @ (left @ (projected / (squares + alpha)[:, None])) * inverse[:, None]
    return lambda new: new @ coef.astype(np.float32) + (base - mean @ coef), alpha
