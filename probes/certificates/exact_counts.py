"""Compute exact tail probabilities of counts: binomial (Clopper-Pearson), and sums of losses in {-1, 0, 1}."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from probes._checks import Float64

# Share of delta spent on the interval for the nuisance parameter of `ternary_p_value`; every share from 1 to 10 %
# gives nearly the same bounds (docs/decisions/0003-certificate.md).
NUISANCE_SHARE = 0.05

_MAX_CELLS = 2**21  # cells of one pmf block, 16 MiB of float64
_TINY = 1e-300


def binomial_cdf(k: npt.ArrayLike, n: int, p: npt.ArrayLike) -> Float64:
    """Return P(Bin(n, p) <= k), elementwise over k and p broadcast together.

    k: integers, any value. n >= 1. p in [0, 1]. Relative accuracy about 1e-10 (regularised incomplete beta by
    its continued fraction, Abramowitz & Stegun 26.5.8).
    """
    k_all, p_all = np.broadcast_arrays(np.floor(np.asarray(k, float)), np.asarray(p, float))
    out = np.where(k_all < 0, 0.0, 1.0)
    out[(k_all >= 0) & (k_all < n) & (p_all >= 1)] = 0.0
    inside = (k_all >= 0) & (k_all < n) & (p_all > 0) & (p_all < 1)
    if inside.any():
        k_in, p_in = k_all[inside], p_all[inside]
        out[inside] = _incomplete_beta(n - k_in, k_in + 1, 1 - p_in)
    return out


def clopper_pearson_upper(k: npt.ArrayLike, n: int, delta: float) -> Float64:
    """Return the exact upper confidence limit for p from k successes of n, at confidence 1 - delta.

    It solves P(Bin(n, p) <= k) = delta (Clopper & Pearson 1934); k = n gives 1. The left side is the survival function
    of a beta distribution, which is log-concave in p. So Newton's steps on its logarithm come down from Chernoff's
    bound to the root and never pass it: an error is on the safe side.
    """
    k_all = np.asarray(k, dtype=float)
    flat = np.minimum(k_all.ravel(), n - 1)
    mean, log_term = flat / n, -math.log(delta)
    # Chernoff with the largest variance between mean and limit: that of the mean from 1/2 up, else bounded
    variance_term = 2 * mean * log_term / n
    above_half = mean + np.sqrt(variance_term * (1 - mean))
    below_half = mean + np.minimum(np.sqrt(variance_term) + 2 * log_term / n, math.sqrt(log_term / (2 * n)))
    p = np.minimum(np.where(mean >= 0.5, above_half, below_half), (1 - delta) ** (1 / n))  # k = n - 1: the last
    log_beta = _log_beta(n - flat, flat + 1)
    for _ in range(60):
        cdf = np.maximum(binomial_cdf(flat, n, p), _TINY)
        log_density = flat * np.log(p) + (n - flat - 1) * np.log1p(-p) - log_beta
        step = (np.log(cdf) + log_term) * cdf / np.exp(log_density)
        p = np.minimum(p, p + np.minimum(step, 0.0))
        if np.all(np.abs(step) <= 1e-11 * p):
            break
    return np.where(k_all.ravel() >= n, 1.0, p).reshape(k_all.shape)


def ternary_p_value(
    net: npt.ArrayLike, discordant: npt.ArrayLike, n: int, limit: npt.ArrayLike, delta: float
) -> Float64:
    """Return an exact p-value for "the mean loss exceeds `limit`", for losses in {-1, 0, 1}.

    net: number of +1 minus number of -1, discordant: their sum (arrays are broadcast with limit). n: sample size.
    limit in (-1, 1). delta: the level it will be compared with; `NUISANCE_SHARE` of it goes to the nuisance.

    The law of the net count S depends on the limit and on one nuisance parameter q = P(loss != 0). Following
    Berger & Boos (1994), p = beta + max P_q(S <= net) over q <= U, with U the Clopper-Pearson limit for q at
    confidence 1 - beta; that is a valid p-value for every fixed beta. The maximum needs no search:

    * for q <= 1/2 the generating function of a loss has real roots, so S + n is a sum of Bernoulli variables,
      two kinds, n of each: its law is the convolution of two binomials, computed exactly here;
    * such a law is unimodal with its mode within 1 of its mean (Darroch 1964), and
      d/dq P_q(S <= s) = (n / 2) [f(s + 1) - f(s)] with f the law of the sum of n - 1 losses, which is >= 0
      while s <= (n - 1) limit - 2. So the maximum over q <= min(U, 1/2) is at the right end;
    * for the rest, 1/2 < q <= U, Chernoff's bound grows with q and is evaluated at U.

    For net beyond (n - 1) limit - 2 the answer is 1 (nothing there could be significant).
    """
    shape = np.broadcast_shapes(np.shape(net), np.shape(discordant), np.shape(limit))
    s, d, m = (np.broadcast_to(np.asarray(v, float), shape).ravel() for v in (net, discordant, limit))
    beta = NUISANCE_SHARE * delta
    unique, where = np.unique(d, return_inverse=True)
    upper = clopper_pearson_upper(unique, n, beta)[where]
    p = np.ones(s.size)
    impossible = upper < m  # the interval alone contradicts the null: mean > limit needs q > limit
    p[impossible] = beta
    test = ~impossible & (s <= (n - 1) * m - 2) & (upper > -m)
    if test.any():
        s, m, upper = s[test], m[test], upper[test]
        tail = _net_cdf(s, n, m, np.maximum(np.minimum(upper, 0.5), np.abs(m)))
        beyond = upper > 0.5
        tail[beyond] = np.maximum(tail[beyond], _net_chernoff(s[beyond], n, m[beyond], upper[beyond]))
        p[test] = np.minimum(1.0, beta + tail)
    return p.reshape(shape)


def _net_cdf(s: Float64, n: int, mean: Float64, q: Float64) -> Float64:
    """Return P(S <= s) for sums of n losses with P(+1) = (q + mean) / 2, P(-1) = (q - mean) / 2; all arrays (r,)."""
    # loss + 1 = Bernoulli(a) + Bernoulli(1 - c), so S = A - C with A ~ Bin(n, a), C ~ Bin(n, c)
    root = np.sqrt(np.maximum((1 + mean) ** 2 - 2 * (q + mean), 0.0))
    c = np.clip((1 - mean - root) / 2, _TINY, 0.5 + np.abs(mean))
    a = np.clip((q + mean) / 2 / (1 - c), _TINY, 1 - 1e-16)
    log_choose = _log_choose(n)
    out = np.empty(s.size)
    step = max(1, _MAX_CELLS // (n + 1))
    for start in range(0, s.size, step):
        part = slice(start, start + step)
        pmf_a = _pmf(log_choose, n, a[part])
        cdf_c = np.cumsum(_pmf(log_choose, n, c[part]), axis=1)
        # A convolution for each row, without an array (r, n, n): S <= s means C >= A - s, whose probability is one
        # minus the CDF of C just below.
        below = np.arange(pmf_a.shape[1]) - s[part, None].astype(np.int64) - 1
        reach = np.clip(below, 0, cdf_c.shape[1] - 1)
        missed = np.where(below >= 0, np.take_along_axis(cdf_c, reach, axis=1), 0.0)
        out[part] = (pmf_a * (1 - np.minimum(missed, 1.0))).sum(axis=1)
    return out


def _net_chernoff(s: Float64, n: int, mean: Float64, q: Float64) -> Float64:
    """Return the least E exp(-t (S - s)) over a grid of t; every t gives a valid bound, a coarse grid a wide one."""
    t = np.geomspace(1e-3, 3.0, 400)[:, None]
    log_moment = np.log1p(q * (np.cosh(t) - 1) - mean * np.sinh(t))
    return np.asarray(np.exp(np.minimum((n * log_moment + t * s).min(axis=0), 0.0)))


def _log_choose(n: int) -> Float64:
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return np.asarray(logs[-1] - logs - logs[::-1])


def _pmf(log_choose: Float64, n: int, p: Float64) -> Float64:
    """Return probabilities (r, w) of the counts 0..w-1; those beyond sum to less than e^-72 (Bernstein)."""
    mean = n * float(p.max())
    width = min(n + 1, int(mean + 12 * math.sqrt(mean) + 100))
    counts = np.arange(width)
    p = p[:, None]
    return np.asarray(np.exp(log_choose[:width] + counts * np.log(p) + (n - counts) * np.log1p(-p)))


def _log_beta(a: Float64, b: Float64) -> Float64:
    return np.array([math.lgamma(u) + math.lgamma(v) - math.lgamma(u + v) for u, v in zip(a, b, strict=True)])


def _incomplete_beta(a: Float64, b: Float64, x: Float64) -> Float64:
    """Return the regularised incomplete beta function I_x(a, b) for 0 < x < 1 and a, b > 0, elementwise."""
    flip = x > (a + 1) / (a + b + 2)  # the fraction converges fast on this side of the mean only
    a, b, x = np.where(flip, b, a), np.where(flip, a, b), np.where(flip, 1 - x, x)
    front = np.exp(a * np.log(x) + b * np.log1p(-x) - _log_beta(a, b)) / a
    value = np.clip(front * _beta_fraction(a, b, x), 0.0, 1.0)
    return np.asarray(np.where(flip, 1 - value, value))


def _beta_fraction(a: Float64, b: Float64, x: Float64) -> Float64:
    """Return the continued fraction of the incomplete beta function, by the modified Lentz recurrence."""
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    h = d.copy()
    for i in range(1, 20_000):
        even = i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i))
        odd = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            h *= d * c
        if np.all(np.abs(d * c - 1) < 1e-15):
            break
    return h


def _away_from_zero(v: Float64) -> Float64:
    return np.asarray(np.where(np.abs(v) < _TINY, _TINY, v))
