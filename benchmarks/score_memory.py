"""Measure the peak memory and the speed of scoring a large parquet file of embeddings.

    python -m benchmarks.score_memory [--rows 10000000] [--width 384] [--row-group 1000000] [--folder DIR]

Writes a file of random float32 embeddings (15.4 GB at the default size) to a temporary folder within DIR,
scores it in a process of its own with a random LinearProbe, removes it, and prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SCORE = """
import json, resource, sys, time
import numpy as np
from probes.regression.linear import LinearProbe
from probes.embeddings.scoring import score_file
width = int(sys.argv[3])
weights = np.random.default_rng(1).normal(size=(1, width))
probe = LinearProbe(weights, np.zeros(1), np.ones(1))
started = time.perf_counter()
report = score_file(sys.argv[1], sys.argv[2], lambda x: {"loss": probe.predict(x)[:, 0]}, scorer_id="bench")
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": report.rows, "seconds": round(seconds, 1), "peak_resident_mib": round(peak)}))
"""


def write(path: Path, rows: int, width: int, row_group: int) -> None:
    """Write random embeddings as a fixed-size-list column, one row group at a time from one repeated block."""
    block = np.random.default_rng(0).normal(size=(10_000, width)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), width)
    batch = pa.record_batch([column], ["embedding"])
    with pq.ParquetWriter(path, batch.schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, row_group):
            count = min(row_group, rows - start)
            table = pa.Table.from_batches([batch] * -(-count // 10_000)).slice(0, count)
            writer.write_table(table, row_group_size=row_group)


def main() -> None:
    """Write the file, score it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--row-group", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the large file may lie; the system's temporary folder else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "embeddings.parquet"
        started = time.perf_counter()
        write(source, arguments.rows, arguments.width, arguments.row_group)
        written = {
            "width": arguments.width,
            "file_bytes": source.stat().st_size,
            "row_group": arguments.row_group,
        }
        written["seconds_to_write"] = round(time.perf_counter() - started, 1)
        command = [
            sys.executable,
            "-c",
            _SCORE,
            str(source),
            str(Path(folder) / "out.parquet"),
            str(arguments.width),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(json.dumps({**json.loads(done.stdout), **written}))


if __name__ == "__main__":
    main()
