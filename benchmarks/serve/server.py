"""Serve our real service on another encoder: `python -m benchmarks.serve.server NAME`.

Prints `serving ... on ADDRESS`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.serve.encoders import ENCODERS
from probes.artifacts import store as artifact
from probes.encoders.spec import Encoder
from router.deciding import pipeline
from router.serving.event_loop import run_in_event_loop
from router.serving.server import serve_forever
from router.serving.settings import ServerSettings
from router.tuning.fitting.fit import fit_probe
from router.tuning.outcomes.datasets import Outcomes

POLICY = """
schema: elle.policy/1
name: bench
version: "1"
probe: probe
candidates:
  - {name: small, model: openai/small, probe_model: small, capabilities: [text]}
  - {name: large, model: openai/large, probe_model: large, capabilities: [text]}
rule: {kind: gain, thresholds: [0.15]}
safe_default: large
"""


def write_policy(folder: Path, encoder: Encoder) -> Path:
    """Write a policy on a probe of this encoder's width, fitted on noise; its decisions do not matter here."""
    rng = np.random.default_rng(0)
    n, names = 400, tuple(f"prompt {i}" for i in range(400))
    unknown = np.full((n, 2), np.nan)
    outcomes = Outcomes(
        texts=names,
        ids=names,
        groups=("",) * n,
        models=("small", "large"),
        scores=rng.integers(0, 2, (n, 2)).astype(float),
        cost_usd=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        sources=(),
    )
    features = rng.standard_normal((n, encoder.n_features)).astype(np.float32)
    probe = fit_probe(outcomes, features, encoder.spec, title="bench").probe
    artifact.save(probe, folder / "probe")
    path = folder / "policy.yaml"
    path.write_text(POLICY)
    return path


def main() -> None:
    """Serve the named variant until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(ENCODERS))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-pending", type=int, default=4096)
    parser.add_argument("--share-port", action="store_true")
    asked = parser.parse_args()
    encoder = ENCODERS[asked.name]()
    pipeline.load_encoder = lambda spec, directory=None: encoder
    with tempfile.TemporaryDirectory() as folder:
        settings = ServerSettings(
            policies=(write_policy(Path(folder), encoder),),
            port=asked.port,
            threads=asked.threads,
            max_pending=asked.max_pending,
            cache_entries=0,
            drain_s=0.5,
            share_port=asked.share_port,
        )
        run_in_event_loop(
            serve_forever(settings, lambda running: print(f"serving on {running.address}", file=sys.stderr))
        )


if __name__ == "__main__":
    main()
