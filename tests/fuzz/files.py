"""Read spoiled files for a bounded time: `python -m tests.fuzz.files --seconds 900`; print the counts as JSON.

The kinds of file are those of `tests.fuzz.test_files`, whose checks hypothesis drives. Here a plain random generator
makes the inputs, which is many times as fast. An input that raises an error that is not ours, or that takes longer than
five seconds, is kept in the folder of `--keep`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.test_files import KINDS, refused_or_read, with_edits, with_value

#: Seconds after which an input counts as one that hangs.
MOST_S = 5.0

#: Values that are put in the place of others.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 1e308, -1e-320, float("nan"), float("inf"), 0.5),
    *("", "x", "\0", "\ud800", "9" * 400, "../../etc/passwd", "' OR 1=1 --", [], {}, [[]], {"": {}}, [1] * 50),
)


def spoiled(chance: random.Random, good: bytes, document: Any, kind: str) -> bytes:
    """Return an input: the good file with other bytes, or with another value in one place."""
    if document is None or chance.random() < 0.5:
        edits = [
            (chance.random(), chance.choice((0, 1, 4, 40)), chance.randbytes(chance.randrange(12)))
            for _ in range(chance.randrange(1, 5))
        ]
        return with_edits(good, edits)
    changed = with_value(document, [chance.randrange(31) for _ in range(chance.randrange(1, 6))], chance.choice(ODD))
    text = yaml.safe_dump(changed) if kind == "policy" else json.dumps(changed)
    return text.encode("utf-8", "surrogatepass")


def fuzz_files(seconds: float, seed: int, keep: Path) -> dict[str, Any]:
    """Read spoiled files of all kinds in turns until the time is over. Return the counts."""
    chance, counts, faults = random.Random(seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as place:
        files, documents = {}, {}
        for kind, (name, make, _) in KINDS.items():
            file = Path(place) / kind / name
            file.parent.mkdir()
            make(file)
            files[kind], text = file, file.read_text("utf-8", "replace")
            documents[kind] = yaml.safe_load(text) if kind == "policy" else json.loads(text) if kind in JSON else None
        good = {kind: file.read_bytes() for kind, file in files.items()}
        began, at_first = time.monotonic(), 0
        while time.monotonic() < began + seconds:
            for kind, (_, _, read) in KINDS.items():
                data, started = spoiled(chance, good[kind], documents[kind], kind), time.monotonic()
                try:
                    refused_or_read(files[kind], data, read)
                    why = "" if time.monotonic() < started + MOST_S else "it takes too long"
                except Exception as error:
                    why = f"{type(error).__name__}: {error}"
                counts[kind] += 1
                if why:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{kind}-{seed}-{counts[kind]}").write_bytes(data)
                    faults.append(f"{kind}: {why[:300]}")
            if counts.total() >= 2000 and not at_first:
                at_first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_first if at_first else None
    took = round(time.monotonic() - began)
    return {"inputs": counts.total(), "by_kind": counts, "seconds": took, "grown_kb": grown, "faults": faults[:50]}


#: The kinds whose good file is one JSON document.
JSON = frozenset({"probe", "canary", "drift"})


def main() -> None:
    """Run the fuzzer as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.files")
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz-files"))
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = fuzz_files(asked.seconds, asked.seed, asked.keep)
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
