"""The wheel works where people start: without compiler and make, with a read-only home, with each extra alone.

Each test installs into a fresh environment by pip, so it needs what pip needs: a package registry or its cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from probes.encoders.files import find_encoder
from probes.encoders.spec import MINILM_L6
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_real_encoder")]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: `dev` is for contributors.
EXTRAS = [None, *sorted(PROJECT["optional-dependencies"].keys() - {"dev"})]
#: Without the extra these end with one line that names it.
ASKING_FOR = {
    "train": ["select", "keep", "scores.parquet", "--out", "kept.parquet"],
    "dispatch": ["serve", "--http", "0"],
    "envoy": ["serve", "--ext-proc", "closed"],
    "ledger": ["serve", "--ledger", "ledger.db"],
    "admin": ["serve", "--admin-port", "0"],
    "otel": ["serve", "--otlp-endpoint", "localhost:1"],
    "jwt": ["serve", "--jwks", "jwks.json", "--jwt-issuer", "a", "--jwt-audience", "b"],
}


def ran(*command: object, **settings: object) -> subprocess.CompletedProcess[str]:
    # With PYTHONPATH pip would find this checkout, and install nothing.
    settings.setdefault("env", {name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of a copy of the sources, with a compiler that always fails and no make on the PATH."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("router", "probes"):
        without = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / "dist", folder)
    done = ran(*build, env={**os.environ, "CC": "/bin/false"}, cwd=folder)
    if "No matching distribution" in done.stderr:
        pytest.skip("pip cannot get setuptools; a package registry is needed")
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("*.whl"))


def _find_python(version: str) -> str:
    """Return a CPython of this version from the PATH or from pyenv, or skip the test."""
    name = f"python{version}"
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/{name}"))
    found = [str(path) for path in pyenv] + [path for path in [shutil.which(name)] if path]
    works = [path for path in found if ran(path, "-c", "import venv, ensurepip").returncode == 0]
    if not works:
        pytest.skip(f"CPython {version} is neither on the PATH nor in ~/.pyenv")
    return works[0]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_every_python_that_is_supported_builds_its_wheel_and_decides_with_it(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    place = tmp_path / "env"
    assert ran(_find_python(version), "-m", "venv", place).returncode == 0
    python, sources = place / "bin" / "python", wheel.parents[1]
    done = ran(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, sources)
    assert done.returncode == 0, done.stderr
    tag = f"cp{version.replace('.', '')}"
    (built,) = tmp_path.glob(f"elle_router-*-{tag}-{tag}-*.whl")
    done = ran(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{built}[serve]")
    assert done.returncode == 0, done.stderr
    environment = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "ELLE_ENCODER_DIR": str(find_encoder(MINILM_L6))}
    decided = ran(place / "bin" / "elle", "decide", "What is the capital of France?", env=environment, cwd=tmp_path)
    assert decided.stdout.startswith("economy"), decided.stderr


@pytest.mark.timeout(1800)  # `torch` and `all` may bring 7 GB
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_the_wheel_works_with_an_extra_alone_or_says_what_it_lacks(
    extra: str | None, wheel: Path, tmp_path: Path
) -> None:
    place = tmp_path / "env"
    assert ran(sys.executable, "-m", "venv", place).returncode == 0
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    done = ran(place / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", what)
    assert done.returncode == 0, done.stderr
    (tmp_path / "scores.parquet").write_bytes(b"")
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "ELLE_ENCODER_DIR": str(find_encoder(MINILM_L6))}

    def elle(*words: str) -> subprocess.CompletedProcess[str]:
        return ran(*_unprivileged(), place / "bin" / "elle", *words, env=environment, cwd=tmp_path, timeout=120)

    said = elle("version")
    assert said.stdout.startswith(f"elle-router {PROJECT['version']}"), said.stderr
    decided = elle("decide", "What is the capital of France?")
    if extra in {"serve", "all"}:
        assert decided.stdout.startswith("economy"), decided.stderr
        assert list(home.iterdir()) == []
    else:
        _says_what_to_install(decided, "serve")
    # LiteLLM brings the library for JSON Web Tokens too, and Ray the one for parquet.
    brought = {"jwt": "jwt", "train": "pyarrow"}
    there = (set(ASKING_FOR) if extra == "all" else {extra}) | {
        name
        for name, library in brought.items()
        if ran(place / "bin" / "python", "-c", f"import {library}").returncode == 0
    }
    for needed, words in ASKING_FOR.items():
        if needed not in there:
            _says_what_to_install(elle(*words), needed, "serve", "dispatch")


def _says_what_to_install(done: subprocess.CompletedProcess[str], *extras: str) -> None:
    """Check that the last line names one of these extras: who lacks several is told of the first."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert any(f"pip install 'elle-router[{extra}]'" in done.stderr.splitlines()[-1] for extra in extras), done.stderr


def _unprivileged() -> list[str]:
    """Return a prefix that takes root's privileges from a command, so that it cannot write where it may not."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("the tests run as root, and setpriv, which takes its privileges away, is not installed")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
