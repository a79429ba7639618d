"""Odd files of twenty kinds through every verb that reads one: no traceback, no hang, no word of Python's own."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from router.policies.loading import DEFAULTS
from tests.conftest import ROOT
from tests.router.cli.test_spoiled_files import DRIVER, npy

ROWS = "".join(
    json.dumps({"prompt": f"p{i}", "model": model, "score": (i % 3) / 2}) + "\n" for i in range(30) for model in "ab"
)


def zipped(name: str, member: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, member)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((4, 8), np.float32))
    return buffer.getvalue()


CONTENTS: Mapping[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n",
    "gzip": gzip.compress(ROWS.encode()),
    "gzip-cut": gzip.compress(ROWS.encode())[:60],
    "zip-in-npz": zipped("embedding.npy", zipped("embedding.npy", array())),
    "utf16-cut": ROWS.encode("utf-16")[:-1],
    "utf16-without-mark": ROWS.encode("utf-16-le"),
    "nul": b"\0" * 100,
    "nested": b"[" * 2000 + b"]" * 2000,
    "nested-prompt": b'{"prompt": ' + b"[" * 2000 + b"]" * 2000 + b', "model": "a", "score": 1}\n',
    "infinite": ROWS.replace("0.5", "1e999").encode(),
    "digits": ROWS.replace("0.5", "9" * 5000).encode(),
    "digits-as-name": ROWS.replace('"a"', "9" * 5000).encode(),
    "twice": b'{"prompt": "x", "prompt": "y", "model": "a", "score": 1}\n' * 3,
    "number": b"7",
    "list": b"[1, 2]",
    "null": b"null",
    "random": np.random.default_rng(0).bytes(3000),
    "latin1": "prompt,model,score\ncaf\xe9,a,1\n".encode("latin-1"),
    "quote": b'prompt,model,score\n"open,a,1\n',
    "html": b"<html><body>404</body></html>",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94.",
    "npy-code": npy("(__import__('os'), 2)"),
    "npy-call": npy("f(1)"),
    "npy-descr": npy("(1, 2)", "zz"),
    "time": b"a: !!timestamp x\n",
    "bool": b"a: !!bool x\n",
    "int": b"a: !!int x\n",
    "no-key": b"? \n: 1\n",
}
PLACES = ("folder", "pipe", "socket", "nowhere", "circle", "zeros")

#: What only programmers of Python understand.
PYTHON = re.compile(
    r"Traceback|<class|object at 0x|<ast|Extra data|Expecting |codec can|\b[A-Z]\w+(Error|Exception)\b|NoneType|"
    r"\bdict\b|\bstr\b|\bNone\b|Errno|invalid literal|recursion|ndarray|magic|\(char \d|set_int_max|\\x[0-9a-f]{2}"
)


def make(folder: Path, kind: str, suffix: str) -> Path:
    path = folder / f"{kind}{suffix}"
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # The path of a socket must be short.
        with socket.socket(socket.AF_UNIX) as one, pytest.MonkeyPatch.context() as here:
            here.chdir(folder)
            one.bind(path.name)
    else:
        path.symlink_to({"nowhere": folder / "none", "circle": path, "zeros": Path("/dev/zero")}[kind])
    return path


PROBE = DEFAULTS / "mixtral-gpt4"
CALLS: Mapping[str, tuple[str, ...]] = {
    "validate FILE": (".yaml",),
    "decide x --policy FILE": (".yaml",),
    "policy --from-litellm FILE": (".yaml",),
    "decide --chat FILE": (".json",),
    "fit FILE --out OUT": (".jsonl", ".json", ".csv", ".parquet"),
    f"fit {{good}} --encoder FILE --out OUT": (".json",),  # noqa: F541
    f"evaluate {PROBE} {{good}} --weak a --strong b --prices FILE": (".yaml",),
    "import langfuse FILE --out OUT.jsonl": (".jsonl", ".json", ".csv", ".parquet"),
    "import routellm FILE --out OUT.jsonl": (".csv",),
    "import routerbench FILE --out OUT.jsonl": (".csv",),
    "import openai-batch {good} --scores FILE --out OUT.jsonl": (".jsonl", ".csv"),
    "fit-pairs FILE --out OUT": (".npz", ".parquet", ".safetensors"),
    f"score FILE --probe {PROBE} --out OUT.parquet": (".npy", ".npz", ".parquet", ".safetensors"),
    f"score {{array}} --probe FILE --out OUT.parquet": ("",),  # noqa: F541
    "embed FILE --out OUT.npy": (".jsonl", ".txt"),
    "select label FILE --count 2 --out OUT.parquet": (".npy",),
    "select suspicious FILE --share 0.1 --out OUT.parquet": (".parquet",),
}
#: A text file may hold anything.
FINE = {("embed FILE --out OUT.npy", ".txt"), ("embed FILE --out OUT.npy", ".jsonl"), ("fit FILE --out OUT", ".csv")}


def test_every_odd_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(ROWS)
    (tmp_path / "array.npy").write_bytes(array())
    calls = []
    for call, suffixes in CALLS.items():
        for suffix in suffixes:
            for kind in (*CONTENTS, *PLACES):
                if (call, suffix) in FINE and kind in {
                    "blank",
                    "nul",
                    "twice",
                    "html",
                    "utf16-without-mark",
                    "infinite",
                }:
                    continue
                if (call, suffix) == ("embed FILE --out OUT.npy", ".txt") and CONTENTS.get(kind, b"\xff").isascii():
                    continue
                if call.startswith("embed") and kind.startswith("digits"):
                    continue
                folder = tmp_path / f"{len(calls)}"
                folder.mkdir()
                path = make(folder, kind, suffix)
                names = {"good": tmp_path / "good.jsonl", "array": tmp_path / "array.npy"}
                words = call.format(**names).replace("FILE", str(path)).replace("OUT", str(folder / "out"))
                calls.append((kind + suffix, words.split(" ")))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([arguments for _, arguments in calls]),
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"HOME": str(tmp_path)}, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    for (name, arguments), (code, said, trace) in zip(calls, json.loads(done.stdout), strict=True):
        assert not trace, (name, arguments, trace)
        assert code in (1, 2), (name, arguments, code, said[-2000:])
        assert len(said) < 3000, (name, arguments, len(said))
        assert not (found := PYTHON.search(said)), (name, found, said[-2000:])
