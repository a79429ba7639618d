"""Ray Data computes every shard once, also if an actor or the driver is killed, and nothing leaves the machine.

`make test-ray` runs these in an environment that has Ray. ELLE_RAY_ROWS and ELLE_RAY_PROMPTS set how much is scored.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probes.artifacts import store as artifact
from probes.embeddings.scoring import ScoringOptions, probe_scorer, score_file
from probes.errors import DataError
from probes.losses.fitting import fit_loss_probe
from probes.losses.precomputed import read_pairs
from probes.shards.checkpoint import FolderCheckpoint
from probes.shards.choosing import chosen_engine
from probes.shards.work import run_shards
from router.policies.loading import DEFAULT_POLICY, load_policy
from tests.conftest import ROOT
from tests.probes.shards.squares import Squares
from tests.ray_here import NEEDS_RAY
from tests.watched_processes import watched_in

#: A busy machine needs more than a minute to start Ray.
pytestmark = pytest.mark.timeout(600)

ELLE = (sys.executable, "-c", "from router.cli.main import main; main()")

ROWS = int(os.environ.get("ELLE_RAY_ROWS", "20000"))
PROMPTS = int(os.environ.get("ELLE_RAY_PROMPTS", "5000"))
WIDTH = 384


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'elle-router\[ray\]'"):
        chosen_engine("ray", None)


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """Start one cluster for the tests that need no cluster of their own."""
    from probes.shards.ray_cluster import ray_cluster

    with ray_cluster(2):
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write ROWS synthetic embeddings with a loss, and a probe that was fitted on some of them."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH) / 20
    schema = pa.schema([("embedding", pa.list_(pa.float32(), WIDTH)), ("loss", pa.float64())])
    with pq.ParquetWriter(folder / "pairs.parquet", schema, compression="none", use_dictionary=False) as writer:
        for _ in range(10):
            X = rng.normal(size=(ROWS // 10, WIDTH)).astype(np.float32)
            loss = X @ direction + rng.normal(size=len(X))
            column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), WIDTH)
            writer.write_table(pa.table({"embedding": column, "loss": loss}, schema=schema))
    np.savez(folder / "some.npz", embedding=X[:2000], loss=loss[:2000])
    artifact.save(fit_loss_probe(read_pairs(folder / "some.npz"), "some")[0], folder / "probe")
    return folder


@NEEDS_RAY
@pytest.mark.usefixtures("_cluster")
def test_every_shard_is_computed_once_and_a_killed_actor_costs_none(tmp_path: Path) -> None:
    done: list[int] = []
    checkpoint = FolderCheckpoint(tmp_path, 30)
    engine = chosen_engine("ray", 2)
    assert engine is not None
    run_shards(Squares(tmp_path, 30, killed_by=(4, 11)), checkpoint, engine, done.append)
    assert (tmp_path / "killed-4").exists()
    assert (tmp_path / "killed-11").exists()
    assert sorted(done) == list(range(30))
    assert [checkpoint.result(number) for number in range(30)] == [str(n * n).encode() for n in range(30)]


@NEEDS_RAY
@pytest.mark.usefixtures("_cluster")
def test_an_error_of_the_work_is_raised_as_it_is(tmp_path: Path) -> None:
    engine = chosen_engine("ray", 2)
    assert engine is not None
    with pytest.raises(DataError, match="shard 3 cannot be squared"):
        list(engine.results(Squares(tmp_path, 6, failing=3), range(6)))


@NEEDS_RAY
@pytest.mark.usefixtures("_cluster")
def test_scores_are_the_bytes_of_one_process(pairs: Path, tmp_path: Path) -> None:
    probe = artifact.load(pairs / "probe")
    for name, engine in (("one", ScoringOptions().engine), ("ray", chosen_engine("ray", 2))):
        assert engine is not None
        score_file(
            pairs / "pairs.parquet",
            tmp_path / f"{name}.parquet",
            probe_scorer(probe),
            scorer_id=probe.identity,
            options=ScoringOptions(part_rows=ROWS // 7, engine=engine),
        )
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "ray.parquet").read_bytes()


@NEEDS_RAY
@pytest.mark.usefixtures("_cluster")
def test_the_ridge_of_a_fit_on_ray_is_that_of_all_rows_at_once(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.embeddings.sharded_fit import fit_in_shards
    from probes.losses.precomputed import PairFile
    from probes.regression.fit import fit_ridge

    engine = chosen_engine("ray", 2)
    assert engine is not None
    found = fit_in_shards(PairFile(pairs / "pairs.parquet"), engine, least=50)
    table = read_pairs(pairs / "pairs.parquet")
    at_once = fit_ridge(table.embeddings, table.losses)
    assert found.solution.alpha == at_once.alpha
    np.testing.assert_allclose(found.solution.coef, at_once.coef, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.solution.intercept, at_once.intercept, rtol=1e-10, atol=1e-13)


def elle(*arguments: object, **more: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = (*ELLE, *map(str, arguments))
    return subprocess.Popen(argv, env=environment, text=True, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]


@NEEDS_RAY
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_driver_goes_on_where_it_was(tmp_path: Path) -> None:
    """Score prompts by the encoder, kill the driver as soon as a shard is finished, and run the command again."""
    prompts = pa.table({"prompt": [f"What is {n} plus {n % 17}, and why?" for n in range(PROMPTS)]})
    pq.write_table(prompts, tmp_path / "prompts.parquet")
    served = load_policy(DEFAULT_POLICY)
    assert served.probe is not None
    artifact.save(served.probe, tmp_path / "probe")
    command = ("score", tmp_path / "prompts.parquet", "--probe", tmp_path / "probe", "--out")
    ray = ("--engine", "ray", "--processes", "2")
    first = elle(*command, tmp_path / "scores.parquet", *ray)
    until = time.monotonic() + 600
    while not list(tmp_path.glob("*.partial/part-*.json")) and time.monotonic() < until:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = len(list(tmp_path.glob("*.partial/part-*.json")))
    assert 0 < finished < -(-PROMPTS // 1000)
    done, errors = elle(*command, tmp_path / "scores.parquet", *ray, "--json", stdout=subprocess.PIPE).communicate()
    assert f'"resumed_rows": {finished * 1000}' in done, errors
    elle(*command, tmp_path / "plain.parquet").communicate()
    rows = pq.read_table(tmp_path / "scores.parquet")["row"].to_pylist()
    assert rows == list(range(PROMPTS))
    assert (tmp_path / "scores.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()


@NEEDS_RAY
def test_nothing_leaves_the_machine(pairs: Path) -> None:
    # The paths of Ray's sockets are long already.
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        watched = watched_in(Path(folder))
        out = watched.work / "scores.parquet"
        arguments = ("score", pairs / "some.npz", "--probe", pairs / "probe", "--out", out, "--engine", "ray")
        running = watched.start(*ELLE, *map(str, arguments))
        _, errors = running.communicate()
        assert running.returncode == 0, errors
        assert out.exists()
        # Ray asks the kernel which address of this machine leads outside: nothing is sent over such a socket. And it
        # tells the kernel which of its processes should end first if memory runs out.
        known = re.compile(r"lookup 8\.8\.8\.8|route 8\.8\.8\.8|write /proc/\d+/oom_score_adj")
        assert not [line for line in watched.foreign() if not known.fullmatch(line)]
