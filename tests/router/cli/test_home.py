"""Commands for users without a home directory, or with one that cannot be written to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: No entry for this user in the list of users, as in a container that is started with `--user 12345`.
UNKNOWN_USER = """
import pwd
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
MAIN = "from router.cli.main import main; main()"


def elle(*arguments: str, code: str = MAIN, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in {"HOME", "XDG_CACHE_HOME", "ELLE_CACHE_DIR"}}
    argv = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env=kept | env, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    """Outcomes of two models on a few prompts."""
    path = tmp_path / "outcomes.jsonl"
    rows = [
        {"prompt": f"What is {number} + {number}?", "model": model, "score": float((number + place) % 2)}
        for number in range(60)
        for place, model in enumerate(("small", "large"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.parametrize(
    ("code", "env", "why"),
    [
        (UNKNOWN_USER + MAIN, {}, "no home directory"),
        # Each start without a cache exports the encoder anew, so the default run tries one unwritable home only.
        pytest.param(MAIN, {"HOME": "/dev/null"}, "must be writable", marks=pytest.mark.slow),
        (MAIN, {"HOME": "/proc"}, "must be writable"),
        (MAIN, {"HOME": "/", "XDG_CACHE_HOME": "relative"}, None),
    ],
    ids=["unknown user", "no directory", "read only", "relative cache"],
)
def test_deciding_works_without_a_cache_and_says_what_would_make_the_next_start_faster(
    code: str, env: dict[str, str], why: str | None, tmp_path: Path
) -> None:
    # Where the root of the file system can be written to, as here, a home there is one like any other.
    env = {**env, "HOME": str(tmp_path)} if env.get("HOME") == "/" else env
    done = elle("decide", "hello", "--json", code=code, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["chosen"]
    if why is not None:
        assert why in done.stderr
        assert "ELLE_CACHE_DIR" in done.stderr
    else:
        assert (tmp_path / ".cache" / "elle" / "encoders").is_dir()


@pytest.mark.usefixtures("_real_encoder")
def test_fitting_works_without_a_cache(outcomes: Path, tmp_path: Path) -> None:
    done = elle("fit", str(outcomes), "--out", str(tmp_path / "probe"), code=UNKNOWN_USER + MAIN)
    assert done.returncode == 0, done.stderr
    assert "features are not kept" in done.stderr
    assert done.stderr.count("features are not kept") == 1
