"""The attacks notice when a defence is missing: each is run against a copy of the service without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: For each defence the attack that is for it, the file, what is replaced in it, and by what.
MISSING = {
    "a bound on values": (
        "empty_messages",
        "router/intake/json_structure.py",
        "MAX_VALUES = 50_000\n",
        "MAX_VALUES = 50_000_000\n",
    ),
    "decoding apart from the event loop": (
        "openai_as_many_values_as_pass",
        "router/answering/reading/large_answers.py",
        "return await asyncio.get_running_loop().run_in_executor(_THREAD, job, *arguments)",
        "return job(*arguments)",
    ),
    "a timeout": (
        "idle_http_connections",
        "router/serving/http_protocol.py",
        "HEAD_S, BODY_S = 10.0",
        "HEAD_S, BODY_S = 1e6",
    ),
}


def kept(folder: Path, attack: str) -> bool:
    """Return whether the service in this folder keeps the limits of an attack, widened five times for busy machines."""
    argv = [sys.executable, "-m", "benchmarks.attack", "--seconds", "1", "--factor", "5", attack]
    # The folder comes first, so that its copy of the service is attacked.
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    table = json.loads(done.stdout)
    (row,) = table["attacks"]
    assert row["attack"] == attack
    return bool(row["kept"])


@pytest.mark.slow
@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize("defence", MISSING)
def test_an_attack_fails_without_the_defence_that_it_is_for(defence: str, tmp_path: Path) -> None:
    attack, file, present, absent = MISSING[defence]
    for package in ("router", "probes", "benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / package)
    assert kept(tmp_path, attack)
    source = (tmp_path / file).read_text("utf-8")
    assert source.count(present) == 1
    (tmp_path / file).write_text(source.replace(present, absent), "utf-8")
    assert not kept(tmp_path, attack)
