"""Compare batches of the float32 encoder with one prompt at a time, on the device that torch finds.

    python -m benchmarks.torch_batches [--prompts 400] [--batch-tokens 16384]

Prints one JSON object. Batches are of prompts in random order and padded as the service pads them. The shipped probe is
fitted on int8 features, which are near enough to say whether rounding changes a decision.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.serve.prompts import read_prompts
from probes.artifacts import store as artifact
from probes.encoders.files import find_encoder
from probes.encoders.spec import MINILM_L6_FLOAT32
from probes.encoders.torch_runtime import BATCH_TOKENS, TorchBatchEncoder, torch_device
from router.policies.loading import DEFAULTS

#: The shipped policy's: the strong model where it is right more often by this.
MIN_GAIN = 0.15


def batches(prompts: Sequence[Sequence[int]], budget: int) -> Iterator[list[Sequence[int]]]:
    """Yield the prompts in order, as many together as the budget of padded tokens holds."""
    batch: list[Sequence[int]] = []
    for tokens in prompts:
        if batch and (len(batch) + 1) * max(map(len, (*batch, tokens))) > budget:
            yield batch
            batch = []
        batch.append(tokens)
    yield batch


def main() -> None:
    """Measure both ways of encoding, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    arguments = parser.parse_args()
    device = torch_device()
    encoder = TorchBatchEncoder(MINILM_L6_FLOAT32, find_encoder(MINILM_L6_FLOAT32), device)
    texts = read_prompts(arguments.prompts)
    prompts = [encoder.tokenize(text) for text in texts]
    # What is set up at the first call is nobody's time.
    encoder.encode_batch(prompts[:2])
    started = time.perf_counter()
    alone = np.concatenate([encoder.encode_batch([tokens]) for tokens in prompts])
    between = time.perf_counter()
    together = np.concatenate([encoder.encode_batch(batch) for batch in batches(prompts, arguments.batch_tokens)])
    ended = time.perf_counter()
    probe = artifact.load(DEFAULTS / "mixtral-gpt4")
    risks = [probe.predict(features).risk for features in (alone, together)]
    strong = [risk[:, 0] - risk[:, 1] >= MIN_GAIN for risk in risks]
    report = {
        "device": device,
        "prompts": len(prompts),
        "batch_tokens": arguments.batch_tokens,
        "largest_feature": float(np.abs(alone).max()),
        "largest_difference_of_features": float(np.abs(alone - together).max()),
        "largest_difference_of_risks": float(np.abs(risks[0] - risks[1]).max()),
        "to_the_strong_model": int(strong[0].sum()),
        "decisions_that_differ": int((strong[0] != strong[1]).sum()),
        "ms_per_prompt_alone": round(1e3 * (between - started) / len(prompts), 3),
        "ms_per_prompt_in_batches": round(1e3 * (ended - between) / len(prompts), 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
