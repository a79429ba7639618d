"""Score an embedding file of any size with a probe.

Run it by `python examples/scoring.py`. Writes a small npy file to a temporary folder, fits a probe on its first rows,
and scores all of it into parquet. It interrupts the first run to show that the output appears complete or not at all,
and that a second run continues the first. Needs the `train` extra.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from probes.embeddings.scoring import ScoringOptions, score_file
from probes.regression.ridge import RidgeFitter


def main() -> None:
    """Fit a probe, score a file, interrupt the scoring, and continue it."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(50_000, 64)).astype(np.float32)
    losses = embeddings[:2_000] @ rng.normal(size=64) + rng.normal(size=2_000)
    probe = RidgeFitter(64).update(embeddings[:2_000], losses).solve().probe
    calls = iter(range(1_000_000))

    def score(features: np.ndarray) -> dict[str, np.ndarray]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return {"loss": probe.predict(features)[:, 0]}

    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "embeddings.npy", Path(folder) / "scores.parquet"
        np.save(source, embeddings)
        try:
            score_file(source, out, score, scorer_id="example", options=ScoringOptions(part_rows=10_000))
        except KeyboardInterrupt:
            print(f"interrupted; is there an output? {out.exists()}")
        report = score_file(source, out, score, scorer_id="example", options=ScoringOptions(part_rows=10_000))
        table = pq.read_table(out)
        print(f"{report.rows} rows scored, {report.resumed_rows} of them before the interruption")
        print(f"columns {table.column_names}, mean predicted loss {np.mean(table['loss']):.3f}")


if __name__ == "__main__":
    main()
