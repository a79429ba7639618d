"""Compare the default with the same probe reading whole prompts: what asides flip, and what leaving them out costs.

The cost is the computing of one thread for the features of a prompt, by both encoders in turn, the least of five times.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.default_probe.measure import appended_figures, everyday_figures, read_appended, read_everyday
from benchmarks.default_probe.sources import read_rows
from probes.artifacts import store
from probes.asides.gate import AsideGate
from probes.asides.reading import without_asides
from probes.encoders.load import load_encoder
from probes.encoders.spec import MINILM_L6, MINILM_L6_WITHOUT_ASIDES
from router.deciding.pipeline import Router
from router.policies.loading import DEFAULT_POLICY, DEFAULTS

_PROMPTS, _ROUNDS = 400, 5


def compare() -> dict[str, Any]:
    """Return the flips of both readings, how many prompts of the fit lose something, and what the gate costs."""
    readings = {"without_asides": Router.from_files(), "whole": _reading_whole()}
    appended = {
        name: {what: appended_figures(prompts, router) for what, router in readings.items()}
        for name, prompts in read_appended().items()
    }
    texts, gate = read_rows().texts, AsideGate.read()
    drawn = np.random.default_rng(0).choice(len(texts), _PROMPTS, replace=False)
    return {
        "appended": appended,
        "share_that_loses_something": float(np.mean([without_asides(text, gate) != text for text in texts])),
        "everyday": everyday_figures(read_everyday(), readings["without_asides"]),
        "computing": {
            "pool": _cost([texts[row] for row in drawn]),
            "everyday": _cost([one["prompt"] for one in read_everyday()]),
        },
    }


def _reading_whole() -> Router:
    """Return a router by the default's policy and weights, whose encoder reads all of a prompt."""
    probe = replace(store.load(DEFAULTS / "tiers"), encoder=MINILM_L6.to_dict(), encoder_identity=MINILM_L6.identity)
    with tempfile.TemporaryDirectory() as folder:
        store.save(probe, Path(folder) / "probe")
        policy = Path(folder) / "policy.yaml"
        policy.write_text(DEFAULT_POLICY.read_text("utf-8").replace("builtin:tiers", "probe"), "utf-8")
        return Router.from_files(policy)


def _cost(texts: Sequence[str]) -> dict[str, float]:
    """Return median milliseconds of whole reading, and the median and the 95th percentile of the paired ratios."""
    encoders = [load_encoder(MINILM_L6), load_encoder(MINILM_L6_WITHOUT_ASIDES)]
    taken = np.full((_ROUNDS, len(encoders), len(texts)), np.inf)
    for turn in range(_ROUNDS):
        for number, text in enumerate(texts):
            for which, encoder in enumerate(encoders):
                begin = time.thread_time()
                encoder.encode(text)
                taken[turn, which, number] = time.thread_time() - begin
    whole, without = taken.min(axis=0)
    ratio = without / whole
    return {
        "n": len(texts),
        "whole_ms": 1e3 * float(np.median(whole)),
        "ratio_median": float(np.median(ratio)),
        "ratio_p95": float(np.quantile(ratio, 0.95)),
    }
