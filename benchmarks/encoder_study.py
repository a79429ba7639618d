"""Measure what precision, token limit, truncation and depth of the encoder cost in routing and save in time.

    python -m benchmarks.encoder_study [--prompts N]        # an hour

MMLU, also with whole subjects left out, GSM8K and MMLU-Pro of ../shared/data, 5 folds, the recipe of `elle fit`.
`reference_ahead` is by how much the reference (float32, as deep as what is shipped, 256 tokens, both ends) has the
larger APGR, paired over prompts. `agreement` is the share of prompts decided as by the reference, mean over strong
shares of 10 to 90 %. `ms` is CPU time of one prompt, tokens included, medians of variants taken in turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.bench_quality import DATA, PRO_STRONG, PRO_WEAK, STRONG, WEAK
from probes.encoders.bundle import build_bundle
from probes.encoders.exported import ExportedEncoder
from probes.encoders.files import find_encoder
from probes.encoders.spec import MINILM_L6, EncoderSpec, encode_all
from probes.grouping import group_numbers
from router.tuning.judging.cross_validation import Split, probe_risk, split_folds
from router.tuning.judging.encoder_parity import agreement
from router.tuning.judging.ranking import RouterScores, Truth, measure
from router.tuning.outcomes.datasets import Outcomes, read_outcomes

#: File, weak and strong model, and how prompts are left out, by what the results call it.
TASKS: dict[str, tuple[str, tuple[str, str], Split]] = {
    "mmlu": ("routellm_mmlu", (WEAK, STRONG), "random"),
    "mmlu_held_out_subjects": ("routellm_mmlu", (WEAK, STRONG), "group"),
    "gsm8k": ("routellm_gsm8k", (WEAK, STRONG), "random"),
    "mmlu_pro": ("mmlu_pro", (PRO_WEAK, PRO_STRONG), "random"),
}

#: Besides the shipped one.
DEPTHS = ("1", "1.5", "2", "3", "4")

TIMED = 200


@dataclass(frozen=True)
class Variant:
    """Describes one way to encode: precision, token limit, truncation and depth."""

    precision: str = "int8"
    max_tokens: int = 256
    truncation: str = "head_tail"
    pooling: tuple[str, ...] = MINILM_L6.pooling

    @property
    def forward(self) -> tuple[str, int, str]:
        """Return what variants must have in common to share one pass over the prompts."""
        return self.precision, self.max_tokens, self.truncation

    def spec(self, pooling: tuple[str, ...]) -> EncoderSpec:
        """Return the spec of MiniLM with this pooling."""
        how = {"precision": self.precision, "max_tokens": self.max_tokens, "truncation": self.truncation}
        return replace(MINILM_L6, tensors_sha256=None, pooling=pooling, **how)  # type: ignore[arg-type]


REFERENCE = Variant("float32")

VARIANTS = (
    REFERENCE,
    Variant("float32", truncation="head"),
    Variant(),
    Variant(truncation="head"),
    Variant(max_tokens=128),
    Variant(max_tokens=128, truncation="head"),
    Variant(max_tokens=64),
    *(Variant(pooling=(f"mean@{depth}", f"max@{depth}")) for depth in DEPTHS),
)


def main() -> None:
    """Run all variants and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=0, help="500 or more, drawn at random; all unless set")
    asked = parser.parse_args()
    if 0 < asked.prompts < 500:
        parser.error("--prompts must be 500 or more: on fewer the strong model need not be the better one.")
    data = {
        task: read_outcomes(DATA / f"{file}.parquet").select_models(pair).complete_rows()
        for task, (file, pair, _) in TASKS.items()
    }
    if asked.prompts:
        # The same ones for both tasks on MMLU.
        drawn = {task: np.random.default_rng(0).permutation(len(one))[: asked.prompts] for task, one in data.items()}
        data = {task: one.take(np.sort(drawn[task])) for task, one in data.items()}
    source = find_encoder(MINILM_L6)
    judged = judge(data, source)
    found = [
        {**vars(variant), "ms": ms, **{task: figures(data[task], judged[task], variant) for task in data}}
        for variant, ms in zip(VARIANTS, in_turns(data["mmlu"].texts[:TIMED], source), strict=True)
    ]
    sizes = {task: len(outcomes) for task, outcomes in data.items()}
    print(json.dumps({"commit": commit(), "hardware": hardware(), "prompts": sizes, "variants": found}, indent=2))


def judge(data: Mapping[str, Outcomes], source: Path) -> dict[str, dict[Variant, RouterScores]]:
    """Return what a probe on each variant's features says of prompts left out, by task."""
    judged: dict[str, dict[Variant, RouterScores]] = {task: {} for task in data}
    texts = {TASKS[task][0]: outcomes.texts for task, outcomes in data.items()}
    folds = {task: split_folds(outcomes, 5, TASKS[task][2]) for task, outcomes in data.items()}
    for forward in dict.fromkeys(variant.forward for variant in VARIANTS):
        variants = [variant for variant in VARIANTS if variant.forward == forward]
        # One pass for all of them, and for both tasks on MMLU.
        parts = tuple(dict.fromkeys(part for variant in variants for part in variant.pooling))
        encoder = ExportedEncoder(build_bundle(variants[0].spec(parts), source))
        features = {file: encode_all(encoder, of_file) for file, of_file in texts.items()}
        for task, outcomes in data.items():
            blocks = dict(zip(parts, np.split(features[TASKS[task][0]], len(parts), axis=1), strict=True))
            for variant in variants:
                read = np.concatenate([blocks[part] for part in variant.pooling], axis=1)
                risk = probe_risk(outcomes, read, folds[task])
                judged[task][variant] = RouterScores(risk[:, 0] - risk[:, 1], risk[:, 0])
        print(f"encoded and fitted {forward}", file=sys.stderr)
    return judged


def figures(outcomes: Outcomes, judged: Mapping[Variant, RouterScores], variant: Variant) -> dict[str, Any]:
    """Return APGR with its interval, the reference's lead, the ECE of the weak risk, and the share decided alike."""
    truth = Truth(outcomes.scores, group_numbers(outcomes.texts))
    compared = {"reference": judged[REFERENCE], "variant": judged[variant]}
    one = measure(compared, truth, reference="reference", resamples=500)["variant"]
    ahead = one.ahead["apgr"]
    return {
        "apgr": [round(x, 4) for x in (one.apgr.value, one.apgr.low, one.apgr.high)],
        "reference_ahead": [round(x, 4) for x in (ahead.value, ahead.low, ahead.high)],
        "ece": round(one.figures["ece"].value, 4),
        "agreement": round(agreement(judged[variant].gain, judged[REFERENCE].gain), 4),
    }


def in_turns(texts: Sequence[str], source: Path) -> list[float]:
    """Return the median CPU milliseconds per prompt of each variant, measured in turns."""
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
