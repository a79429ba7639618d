"""Spoiled encoders before the C library under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probes.encoders.native_runtime import targets_here
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not targets_here(), reason="no compiled library that this processor can run")


@pytest.fixture(scope="module")
def sanitised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Compile the library with checks of its accesses; return it and the sanitisers' library, to be loaded first."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    found = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(one).is_absolute() for one in found):
        pytest.skip("gcc comes without libasan")
    out = tmp_path_factory.mktemp("sanitised") / "library.so"
    source = ROOT / "probes" / "encoders" / "native" / "int8_encoder.c"
    flags = [
        "-O0",
        "-g",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-ffp-contract=off",
        "-DEMULATE_VNNI",
    ]
    subprocess.run(
        [compiler, *flags, "-Wno-psabi", "-pthread", "-shared", "-fPIC", "-o", out, source, "-lm"], check=True
    )
    return out, ":".join(found)


def fuzz(sanitised: tuple[Path, str], seed: int, count: int) -> dict[str, int]:
    library, preload = sanitised
    command = [sys.executable, "-m", "tests.probes.encoders.fuzz_native", library, str(seed), str(count)]
    environment = os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_no_spoiled_encoder_reads_or_writes_outside_of_its_arrays(sanitised: tuple[Path, str]) -> None:
    found = fuzz(sanitised, seed=1, count=250)
    assert found.keys() == {"refused when read", "refused when loaded", "refused when called", "computed"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nor_do_twenty_thousand_of_them(sanitised: tuple[Path, str]) -> None:
    assert sum(fuzz(sanitised, seed=2, count=20_000).values()) == 20_000
