"""What precision, token limit, truncation and layers of the encoder cost in routing and save in time: JSON on stdout.

    python -m benchmarks.encoder_study [--prompts N]

MMLU and GSM8K of ../shared/data, 5 folds by prompt text, a ridge on the gain of the strong model, uncalibrated: the
ranking by itself, cheap enough for many variants. `ahead` is by how much the reference (float32, 256 tokens, both ends)
has the larger APGR, paired over prompts. `agreement` is the share of prompts decided as by the reference, mean over
strong shares of 10 to 90 %. `ms` is CPU time of one prompt, tokens included, medians of variants taken in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bench_probe import commit, hardware
from probes.encoder import MINILM_L6, EncoderSpec
from probes.encoder_files import find_encoder
from probes.exported_encoder import ExportedEncoder
from probes.fit import fit_ridge
from probes.onnx_bundle import build_bundle
from router.tuning.crossval import split_folds
from router.tuning.datasets import Outcomes, read_outcomes
from router.tuning.parity import agreement
from router.tuning.ranking import Judgement, Truth, measure, text_numbers

DATA = Path(__file__).parents[2] / "shared" / "data"

SHIPPED = MINILM_L6.pooling

#: Every part some variant reads, so that a pass per (precision, tokens, truncation) is enough.
PARTS = ("mean@2", "mean@3", "mean@4", "max@3")

TIMED = 200


@dataclass(frozen=True)
class Variant:
    """One way to encode."""

    precision: str = "int8"
    max_tokens: int = 256
    truncation: str = "head_tail"
    pooling: tuple[str, ...] = SHIPPED

    @property
    def forward(self) -> tuple[str, int, str]:
        """What one pass over the prompts is shared by."""
        return self.precision, self.max_tokens, self.truncation

    def spec(self, pooling: tuple[str, ...]) -> EncoderSpec:
        """Of MiniLM, with this pooling."""
        how = {"precision": self.precision, "max_tokens": self.max_tokens, "truncation": self.truncation}
        return replace(MINILM_L6, pooling=pooling, **how)  # type: ignore[arg-type]


REFERENCE = Variant("float32")

VARIANTS = (
    REFERENCE,
    Variant("float32", truncation="head"),
    Variant(),
    Variant(truncation="head"),
    Variant(max_tokens=128),
    Variant(max_tokens=128, truncation="head"),
    Variant(max_tokens=64),
    Variant(pooling=("mean@3", "mean@4", "max@3")),
    Variant(pooling=("mean@2", "mean@3", "max@3")),
)


def main() -> None:
    """Run all variants and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=0, help="of each data set; all unless set")
    asked = parser.parse_args()
    data = {name: read_outcomes(DATA / f"routellm_{name}.parquet") for name in ("mmlu", "gsm8k")}
    if asked.prompts:
        data = {name: one.take(np.arange(min(asked.prompts, len(one)))) for name, one in data.items()}
    source = find_encoder(MINILM_L6)
    gains: dict[str, dict[Variant, npt.NDArray[np.float64]]] = {name: {} for name in data}
    for forward in dict.fromkeys(variant.forward for variant in VARIANTS):
        variants = [variant for variant in VARIANTS if variant.forward == forward]
        encoder = ExportedEncoder(build_bundle(variants[0].spec(PARTS), source))
        for name, outcomes in data.items():
            features = np.stack([encoder.encode(text) for text in outcomes.texts])
            for variant in variants:
                gains[name][variant] = out_of_fold_gain(outcomes, columns(features, variant.pooling))
        print(f"encoded {forward}", file=sys.stderr)
    found = [
        {**vars(variant), "ms": ms, **{name: figures(data[name], gains[name], variant) for name in data}}
        for variant, ms in zip(VARIANTS, in_turns(data["mmlu"].texts[:TIMED], source), strict=True)
    ]
    print(json.dumps({"commit": commit(), "hardware": hardware(), "variants": found}, indent=2))


def columns(features: npt.NDArray[np.float32], pooling: Sequence[str]) -> npt.NDArray[np.float32]:
    """The features of some parts out of those of `PARTS`."""
    blocks = np.split(features, len(PARTS), axis=1)
    return np.concatenate([blocks[PARTS.index(part)] for part in pooling], axis=1)


def out_of_fold_gain(outcomes: Outcomes, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Predicted gain (n,) of prompts left out."""
    gain = outcomes.scores[:, 1] - outcomes.scores[:, 0]
    fold = split_folds(outcomes, 5, "random")
    predicted = np.empty(len(gain))
    for number in np.unique(fold):
        train = fold != number
        probe = fit_ridge(features[train], gain[train][:, np.newaxis]).probe
        predicted[~train] = probe.predict(features[~train])[:, 0]
    return predicted


def figures(outcomes: Outcomes, gains: dict[Variant, npt.NDArray[np.float64]], variant: Variant) -> dict[str, Any]:
    """APGR with its interval, the reference's lead, agreement with it."""
    truth = Truth(outcomes.scores, text_numbers(outcomes.texts))
    judged = {"reference": Judgement(gains[REFERENCE]), "variant": Judgement(gains[variant])}
    one = measure(judged, truth, reference="reference", resamples=500)["variant"]
    ahead = one.ahead["apgr"]
    return {
        "apgr": [round(x, 4) for x in (one.apgr.value, one.apgr.low, one.apgr.high)],
        "reference_ahead": [round(x, 4) for x in (ahead.value, ahead.low, ahead.high)],
        "agreement": round(agreement(gains[variant], gains[REFERENCE]), 4),
    }


def in_turns(texts: Sequence[str], source: Path) -> list[float]:
    """Median CPU milliseconds per prompt of each variant."""
    encoders = [ExportedEncoder(build_bundle(variant.spec(variant.pooling), source)) for variant in VARIANTS]
    spent: list[list[float]] = [[] for _ in encoders]
    for text in texts:
        for encoder, times in zip(encoders, spent, strict=True):
            begun = time.thread_time()
            encoder.encode(text)
            times.append((time.thread_time() - begun) * 1e3)
    return [round(median(times), 3) for times in spent]


if __name__ == "__main__":
    main()
