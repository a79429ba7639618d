"""Say how canary, shadows, drift and the ledger do, which are watched beside the service (`watch_figures`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.observing import catalogue
from router.observing.tally import Snapshot


def watch_figures(snapshot: Snapshot, canary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the page shows of it, as plain JSON values. Counts are those since the start.

    canary: the canary as `router.serving.watching.canary_state` tells it; None if none is followed.
    """
    return {
        "canary": None if canary is None else dict(canary),
        "shadows": list(_shadows(snapshot)),
        "drift": list(_drift(snapshot)),
        "ledger": _ledger(snapshot),
    }


def _shadows(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    pairs, left_out = snapshot.series(catalogue.SHADOW_DECISIONS), snapshot.series(catalogue.SHADOW_UNCOMPARED)
    costs = snapshot.series(catalogue.SHADOW_COST)
    for name in sorted({labels[0] for labels in (*pairs, *left_out)}):
        own = {labels[1:]: n for labels, n in pairs.items() if labels[0] == name}
        compared, alike = sum(own.values()), sum(n for (chosen, shadow), n in own.items() if chosen == shadow)
        yield {
            "name": name,
            "compared": compared,
            "alike_share": alike / compared if compared else None,
            "uncompared": sum(n for labels, n in left_out.items() if labels[0] == name),
            "serving_usd": costs.get((name, "serving"), 0.0),
            "shadow_usd": costs.get((name, "shadow"), 0.0),
        }


def _drift(snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    distances, alarms = snapshot.series(catalogue.DRIFT_DISTANCE), snapshot.series(catalogue.DRIFT_ALARM)
    for (probe,), blocks in sorted(snapshot.series(catalogue.DRIFT_BLOCKS).items()):
        signals = sorted(signal for of, signal in distances if of == probe)
        yield {
            "probe": probe,
            "blocks": blocks,
            "signals": [
                {"signal": one, "distance": distances[probe, one], "alarm": bool(alarms.get((probe, one)))}
                for one in signals
            ],
        }


def _ledger(snapshot: Snapshot) -> dict[str, Any] | None:
    if not snapshot.series(catalogue.LEDGER_DOWN):
        return None
    fates = snapshot.series(catalogue.LEDGER_ROWS)
    return {
        "down": bool(snapshot.value(catalogue.LEDGER_DOWN)),
        "written": fates.get(("written",), 0.0),
        "dropped": fates.get(("dropped",), 0.0),
        "waiting": snapshot.value(catalogue.LEDGER_WAITING),
        "spool_bytes": snapshot.value(catalogue.LEDGER_SPOOL),
        "lag_s": snapshot.value(catalogue.LEDGER_LAG),
    }
