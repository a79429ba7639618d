"""Every file a verb reads, spoiled: a clear error that names it, no traceback, in bounded memory and time."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probes.artifacts.store import load as load_probe
from probes.errors import ArtifactDigestError
from router.policies.loading import DEFAULTS, EXAMPLE_POLICY
from tests.conftest import ROOT

#: Address space a verb may have, as much as it takes to import its libraries and twice the bound on what is decoded.
ADDRESS_SPACE = 6 << 30

CPU_SECONDS = 60

ROWS = [{"prompt": f"p{i}", "model": model, "score": 0.5} for i in range(4) for model in ("a", "b")]


DRIVER = """
import json, sys, traceback
from click.testing import CliRunner
from router.cli.main import cli
done = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(cli, arguments)
    fault = result.exception if not isinstance(result.exception, SystemExit | None) else None
    trace = "".join(traceback.format_exception(fault))[-3000:] if fault else ""
    done.append([result.exit_code, result.output, trace])
print(json.dumps(done))
"""


def refused(calls: Mapping[Path, Sequence[str | Path]], messages: Mapping[Path, str] | None = None) -> None:
    """Each call, of a file and the arguments that name it, ends with an error about that file; all in one process.

    The process is not given more than its memory and time.
    """

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))

    # A row of threads takes address space that nothing is ever written to.
    few = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([list(map(str, arguments)) for arguments in calls.values()]),
        capture_output=True, text=True, cwd=ROOT, env=os.environ | few, preexec_fn=bound, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    for path, (code, said, trace) in zip(calls, json.loads(done.stdout), strict=True):
        assert not trace, (path, trace)
        assert code in (1, 2), (path, code, said[-2000:])
        assert path.name in said.replace("\n", ""), (path, said[-2000:])
        assert (messages or {}).get(path, "") in " ".join(said.split()), (path, said[-2000:])
        assert len(said) < 4000, (path, len(said))


def policy(changes: Callable[[str], str]) -> bytes:
    return changes(EXAMPLE_POLICY.read_text("utf-8")).encode()


def aliases() -> str:
    lines = ["x0: &x0 [" + ", ".join(["lol"] * 9) + "]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines) + "\n"


POLICIES: dict[str, tuple[bytes, str]] = {
    "aliases": (policy(lambda text: aliases() + text), "aliases written out"),
    "aliases as keys": (policy(lambda text: aliases() + "? *x11\n: 1\n" + text), "aliases written out"),
    "an alias as a key": (policy(lambda text: "a: &a [1]\n? *a\n: 1\n" + text), "a key must be a scalar"),
    "depth": (policy(lambda text: text + "more: " + "[" * 10_000), "at most 32 levels deep"),
    "digits": (policy(lambda text: text.replace("32768", "9" * 5000)), "at most 400 characters"),
    "base 60": (policy(lambda text: text.replace("32768", ":".join(["1"] * 9000))), "at most 400 characters"),
    "a large number": (policy(lambda text: text.replace("32768", "9" * 300)), "context_window_tokens"),
    "infinity": (policy(lambda text: text.replace("0.24", "1e999")), "input_usd_per_million_tokens"),
    "a large price": (policy(lambda text: text.replace("30.0", "1.0e+300")), "output_usd_per_million_tokens"),
    "a long key": (policy(lambda text: text + "k" * 900 + ": 1\n"), "unknown key"),
    "many faults": (policy(lambda text: text + "".join(f"k{i}: 1\n" for i in range(2000))), "more"),
    "half a surrogate": (policy(lambda text: text.replace("description: ", 'description: "\\ud800" # ')), "surrogate"),
    "bytes": (b"\x00\xff\xfe", "cannot be read"),
    "length": (b"#" * (1 << 20), "at most 262,144 bytes"),
    "nothing": (b"", "must hold a mapping"),
}


def test_spoiled_policies_are_refused(tmp_path: Path) -> None:
    calls, messages = {}, {}
    for kind, (contents, message) in POLICIES.items():
        path = tmp_path / f"{kind.replace(' ', '-')}.yaml"
        path.write_bytes(contents)
        calls[path], messages[path] = ("validate", path), message
    refused(calls, messages)


def document(changes: Callable[[dict[str, object]], object]) -> str:
    found = json.loads((DEFAULTS / "mixtral-gpt4" / "probe.json").read_text("utf-8"))
    changes(found)
    return json.dumps(found)


def encoder(**changes: object) -> Callable[[dict[str, object]], object]:
    return lambda found: found["encoder"].update(changes)  # type: ignore[attr-defined]


PROBES: dict[str, str] = {
    "depth": "[" * 200_000,
    "digits": document(lambda found: None).replace('"n_rows": 19466', '"n_rows": ' + "9" * 5000),
    "infinity": document(lambda found: None).replace('"schema_number": 1', '"schema_number": 1e999'),
    "a long calibration": document(lambda found: found.update(calibration=["9" * 5000, "beta"])),
    "a long digest": document(lambda found: found["tensors"].update(sha256="9" * 5000)),  # type: ignore[attr-defined]
    "long models": document(lambda found: found.update(models=["m" * 9000])),
    "a size": document(lambda found: found["tensors"].update(n_bytes=2**62)),  # type: ignore[attr-defined]
    "no object": "7",
    "max_tokens": document(encoder(max_tokens=2**40)),
    "max_tokens as text": document(encoder(max_tokens="256")),
    "pooling": document(encoder(pooling=[f"mean@{i}" for i in range(900)])),
    "a path": document(encoder(revision="../../../../etc")),
    "a model": document(encoder(model_id="x" * 100_000)),
    "precision": document(encoder(precision="float16")),
}


def test_spoiled_probes_are_refused(tmp_path: Path) -> None:
    calls = {}
    for kind, text in PROBES.items():
        path = tmp_path / f"{kind.replace(' ', '-')}.yaml"
        folder = path.with_suffix("")
        folder.mkdir()
        (folder / "probe.safetensors").write_bytes((DEFAULTS / "mixtral-gpt4" / "probe.safetensors").read_bytes())
        (folder / "probe.json").write_text(text)
        path.write_text(EXAMPLE_POLICY.read_text("utf-8").replace("builtin:mixtral-gpt4", str(folder)))
        calls[path] = ("validate", path)
    refused(calls)


def repeated(path: Path, text: str, rows: int) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))
    table = pa.table({"prompt": column, "model": pa.nulls(rows, pa.string()), "score": np.zeros(rows, np.float32)})
    pq.write_table(table, path, compression="zstd")


def nested(path: Path, text: str, rows: int) -> None:
    one = pa.array([[{"role": "user", "content": text}]])
    with pq.ParquetWriter(path, pa.schema({"messages": one.type, "model": pa.string()}), compression="zstd") as writer:
        indices = pa.array(np.zeros(rows, np.int64))
        writer.write_table(pa.table({"messages": one.take(indices), "model": pa.nulls(rows, pa.string())}))


def footer(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    data = path.read_bytes()
    path.write_bytes(data[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1")


OUTCOMES: dict[str, Callable[[Path], object]] = {
    "long text in many rows": lambda path: repeated(path, "y" * 1_000_000, 20_000),
    "many rows": lambda path: repeated(path, "q", 9_000_000),
    "one long text": lambda path: repeated(path, "z" * 150_000_000, 1),
    "long text within lists": lambda path: nested(path, "y" * 1_000_000, 300),
    "a footer of 2 GB": footer,
    "no parquet": lambda path: path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1"),
    "half of it": lambda path: (
        pq.write_table(pa.Table.from_pylist(ROWS), path),
        path.write_bytes(path.read_bytes()[:-30]),
    ),
}


def test_outcomes_that_become_far_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    calls = {}
    for kind, write in OUTCOMES.items():
        path = tmp_path / f"{kind.replace(' ', '-')}.parquet"
        write(path)
        assert path.stat().st_size < 2_000_000
        calls[path] = ("fit", path, "--out", tmp_path / "probe")
    refused(calls)


def npy(shape: str, dtype: str = "<f4", data: bytes = b"", length: int | None = None) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header) if length is None else length) + header + data


def npz(member: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding.npy", member)
    return buffer.getvalue()


def safetensors(header: object, data: bytes = b"\0" * 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**changes: object) -> bytes:
    return safetensors({"embedding": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64], **changes}})


EMBEDDINGS: dict[str, bytes] = {
    "rows.npy": npy(f"({10**15}, 4)"),
    "negative.npy": npy("(-4, 4)"),
    "objects.npy": npy("(4, 4)", "|O"),
    "wide.npy": npy(f"(1, {2**40})"),
    "deep.npy": npy("(" * 3000 + "1" + ")" * 3000),
    "minus.npy": npy("(" + "-" * 5000 + "1,)"),
    "header.npy": npy("(4, 4)", length=2**32 - 1),
    "bool.npy": npy("(True, True)"),
    "zeros.npz": npz(npy("(20000, 2000)", data=bytes(160_000_000))),
    "header.npz": npz(npy("(4, 4)", length=2**31)),
    "promise.npz": npz(npy(f"({10**12}, 4)")),
    "objects.npz": npz(npy("(1, 1)", "|O", b"\x80\x04N.")),
    "depth.safetensors": safetensors(b"[" * 200_000),
    "digits.safetensors": safetensors(b'{"embedding": {"shape": [' + b"9" * 5000 + b"]}}"),
    "floats.safetensors": tensor(shape=[4.0, 4.0]),
    "negative.safetensors": tensor(data_offsets=[-64, 0]),
    "offsets.safetensors": tensor(data_offsets=[0, 64, 64]),
    "before.safetensors": tensor(data_offsets=[64, 0], shape=[0, 4]),
    "promise.safetensors": tensor(data_offsets=[0, 2**62], shape=[2**58, 4]),
    "length.safetensors": struct.pack("<Q", 2**63) + b"{}",
}  # fmt: skip


def lists(path: Path, rows: int, width: int) -> None:
    values = pa.array(np.zeros(rows * width, np.float32))
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(values, width)})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 1_500_000


def test_spoiled_embeddings_are_refused(tmp_path: Path) -> None:
    for name, contents in EMBEDDINGS.items():
        (tmp_path / name).write_bytes(contents)
    lists(tmp_path / "rows.parquet", 5_000_000, 2)
    lists(tmp_path / "width.parquet", 2, 5_000_000)
    arguments = "--probe", DEFAULTS / "mixtral-gpt4", "--out", tmp_path / "out.parquet"
    refused({path: ("score", path, *arguments) for path in sorted(tmp_path.iterdir())})


def test_spoiled_pairs_are_refused(tmp_path: Path) -> None:
    for name, contents in EMBEDDINGS.items():
        if not name.endswith(".npy"):
            (tmp_path / name).write_bytes(contents)
    repeated(tmp_path / "long.parquet", "y" * 1_000_000, 20_000)
    # Whole, and far larger than their files.
    np.savez_compressed(tmp_path / "whole.npz", embedding=np.zeros((40_000, 1000), np.float32), loss=np.zeros(40_000))
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10_000_000, np.float32)), 4)
    pq.write_table(pa.table({"embedding": values, "loss": np.zeros(len(values))}), tmp_path / "whole.parquet")
    refused({path: ("fit-pairs", path, "--out", tmp_path / "probe") for path in sorted(tmp_path.iterdir())})


def test_spoiled_specs_of_encoders_are_refused(tmp_path: Path) -> None:
    contents = ("[" * 100_000, '{"max_tokens": ' + "9" * 5000 + "}", "null", "\ud800")
    for number, text in enumerate(contents):
        (tmp_path / f"spec{number}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    arguments = "--out", tmp_path / "bundle"
    refused({path: ("export-encoder", "--encoder", path, *arguments) for path in sorted(tmp_path.iterdir())})


def test_a_long_identity_in_a_probe_is_not_repeated_whole(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    shutil.copytree(DEFAULTS / "mixtral-gpt4", probe)
    document = json.loads((probe / "probe.json").read_text())
    (probe / "probe.json").write_text(json.dumps(document | {"identity": "x" * 50_000}))
    with pytest.raises(ArtifactDigestError, match="must describe the probe it names") as caught:
        load_probe(probe)
    assert len(str(caught.value)) < 1_000
