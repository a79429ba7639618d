"""Write figures with their intervals as the page of results shows them."""

from __future__ import annotations

from collections.abc import Mapping


def with_interval(one: Mapping[str, float]) -> str:
    """Return a figure and its interval, as in `0.691 [0.667, 0.715]`."""
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def signed_with_interval(one: Mapping[str, float]) -> str:
    """Return a difference and its interval with their signs, as in `+0.012 [+0.005, +0.020]`."""
    return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
