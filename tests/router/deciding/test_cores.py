"""A process takes as many encoder threads as it may use cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.deciding import encode_pool
from router.deciding.cores import usable_cores
from router.deciding.encode_pool import EncodePool
from tests.fakes import FakeHelpedEncoder

CORES = len(os.sched_getaffinity(0))


def machine(root: Path, group: str, quotas: dict[str, str]) -> Path:
    """Return a root folder with this line in /proc/self/cgroup and these files cpu.max."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for folder, quota in quotas.items():
        path = root / "sys/fs/cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.max").write_text(quota)
    return root


@pytest.mark.parametrize(
    ("group", "quotas", "cores"),
    [
        ("0::/\n", {}, CORES),
        ("0::/\n", {"": "max 100000\n"}, CORES),
        ("0::/\n", {"": "100000 100000\n"}, 1),
        ("0::/\n", {"": "50000 100000\n"}, 1),
        ("0::/\n", {"": "190000 100000\n"}, 1),
        ("0::/pod/box\n", {"pod": "100000 100000\n", "pod/box": "max 100000\n"}, 1),
        # The control group of a host that the container does not see: what is mounted is the container's own.
        ("0::/docker/0123\n", {"": "100000 100000\n"}, 1),
        ("1:cpu:/\n0::/\n", {"": "99900000 100000\n"}, CORES),
        ("1:cpu:/\n", {"": "100000 100000\n"}, CORES),
        ("0::/\n", {"": "nonsense"}, CORES),
    ],
)
def test_a_process_uses_no_more_cores_than_its_quota_has_whole_ones(
    tmp_path: Path, group: str, quotas: dict[str, str], cores: int
) -> None:
    assert usable_cores(machine(tmp_path, group, quotas)) == cores


def test_without_proc_the_affinity_mask_gives_the_number(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == CORES


@pytest.mark.parametrize(
    ("cores", "threads", "helped"), [(2, None, True), (1, None, False), (2, 1, False), (1, 2, True)]
)
async def test_a_pool_of_one_thread_does_not_use_an_idle_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int | None, helped: bool
) -> None:
    monkeypatch.setattr(encode_pool, "usable_cores", lambda: cores)
    encoder = FakeHelpedEncoder()
    pool = EncodePool(encoder, threads=threads)
    await pool.close()
    assert encoder.helped is helped
