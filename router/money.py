"""Write amounts of US dollars for people, so that small ones do not read as nothing."""

from __future__ import annotations

import math


def amount_text(usd: float) -> str:
    """Return an amount of US dollars as digits: `1,234.50`, `0.0206`, `0.0000213`, `0`.

    From 1 USD on it has two decimals. A smaller one has four, or as many as show three digits that are not leading
    zeros. Only an amount of exactly nothing reads as `0`.
    """
    size = abs(usd)
    if not size or not math.isfinite(size):
        return f"{size:g}"
    decimals = 2 if size >= 1 else max(4, 2 - math.floor(math.log10(size)))
    return f"{usd:,.{decimals}f}"


def usd_text(usd: float) -> str:
    """Return an amount of US dollars with its unit: `0.0206 USD`. `amount_text` says how many digits it has."""
    return f"{amount_text(usd)} USD"
