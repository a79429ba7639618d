"""The load client against a real service, and the page made of a run's figures."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_serve import MUST, compare, met, middle, over_bare
from benchmarks.serve.client import run
from benchmarks.serve.page import BEGIN, END, write_page
from benchmarks.serve.prompts import read_prompts
from router.serving.settings import ServerSettings
from tests.service import running_service


def asked(address: str, **options: Any) -> Namespace:
    return Namespace(
        **{"address": address, "concurrency": 0, "rate": 0.0, "seconds": 1.0, "calls": 0, "seed": 0} | options
    )


@pytest.fixture(scope="module")
def small_queue(_real_encoder: None) -> Any:
    with running_service(ServerSettings(port=0, threads=1, max_pending=2, cache_entries=0, drain_s=1)) as address:
        yield address


def test_a_closed_loop_sends_as_many_calls_as_asked_for(address: str) -> None:
    found = asyncio.run(run(asked(address, concurrency=4, calls=20), ["a", "b", "c"]))
    assert found["statuses"] == {"OK": 20}
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["stages_p50_ms"]["total"] > 0


def test_a_single_call_at_a_time_is_made_by_a_blocking_client(address: str) -> None:
    found = asyncio.run(run(asked(address, concurrency=1, calls=5), ["a", "b", "c"]))
    assert found["statuses"] == {"OK": 5}
    assert 0 < found["all_but_encoding_p50_ms"] < found["p99_ms"]


def test_an_open_loop_does_not_wait_and_counts_refusals(small_queue: str) -> None:
    prompts = [f"{i} " + "word " * 200 for i in range(300)]
    found = asyncio.run(run(asked(small_queue, rate=300.0, seconds=1.0), prompts))
    assert set(found["statuses"]) == {"OK", "RESOURCE_EXHAUSTED"}
    assert found["refused_ms"]["p50_ms"] > 0


def test_prompts_are_distinct_and_of_mixed_length() -> None:
    prompts = read_prompts(500)
    assert len(prompts) == 500
    assert max(map(len, prompts)) > 4 * min(map(len, prompts))


def figures(p50: float, per_second: float) -> dict[str, Any]:
    return {
        "p50_ms": p50,
        "p95_ms": 2 * p50,
        "p99_ms": 3 * p50,
        "per_second": per_second,
        "server_cpu_ms_per_decision": p50,
        "rss_mb": 100.0,
        "all_but_encoding_p50_ms": 0.7,
        "rpc_p50_ms": 0.4,
        "stages_p50_ms": {"queue": 0.1, "encode": p50, "probe": 0.1, "policy": 0.05, "total": p50},
    }


def test_the_page_holds_the_figures_and_is_stable(tmp_path: Path) -> None:
    names = ("sentence-transformers", "sentence-transformers, torch on 2 threads", "xlm-r-base", "modernbert-base")
    measured = {name: {"start_s": 1.0, "1": figures(40.0, 25.0)} for name in (*names, "elle-float32")}
    measured["bare gRPC and our encoder"] = {"start_s": 1.0, "1": figures(4.0, 250.0)}
    measured["bare gRPC, nothing done"] = {"start_s": 1.0, "1": figures(1.0, 1000.0)}
    measured["elle, 1 thread"] = {"start_s": 1.0, "1": figures(7.0, 150.0)}
    measured["elle on ONNX Runtime"] = {"start_s": 1.0, "1": figures(8.0, 120.0)}
    measured["sentence-transformers, 2 processes"] = {"start_s": 1.0, "32": figures(400.0, 50.0)}
    measured["elle"] = {"start_s": 1.0, "1": figures(5.0, 200.0), "32": figures(80.0, 400.0)}
    measured["elle, 2 processes"] = {"start_s": 1.0, "32": figures(90.0, 350.0)}
    over = over_bare([figures(5.0, 200.0), figures(6.0, 200.0)], [figures(4.0, 250.0), figures(5.0, 250.0)])
    assert over["time_of_a_lone_call"][0] == pytest.approx((1.25 + 1.2) / 2)
    ratios = compare(measured) | {f"{name}_over_bare_grpc": found[0] for name, found in over.items()}
    assert ratios["single_times_faster_than_sentence_transformers"] == 8.0
    assert ratios["throughput_at_32_over_best_sentence_transformers"] == 8.0
    assert ratios["p99_over_p50_at_32"] == 3.0
    report = {
        "commit": "0123456789abcdef",
        "created": "2026-01-01T00:00:00Z",
        "hardware": {"cpu": "a processor", "cores": 2},
        "rounds": 3,
        "seconds": 4.0,
        "single_calls": 50,
        "runtime": "native avx2",
        "tokens_median": 61.0,
        "tokenise_p50_ms": 0.1,
        "variants": measured,
        "ratios": ratios,
        "must": {name: {"limit": limit, "met": met(ratios[name], *MUST[name])} for name, (_, limit) in MUST.items()},
    }
    (tmp_path / "performance.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(report, tmp_path)
    once = (tmp_path / "performance.md").read_text()
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert "| elle | 32 | 80.0 | 160.0 | 240.0 | 400 |" in once
    assert "tokenising (about 0.10) and forward pass 5.00" in once
    assert "NOT met" in once  # eight times faster than xlm-r, not 25
    assert (tmp_path / "performance.png").stat().st_size > 1000
    write_page(report, tmp_path)
    assert (tmp_path / "performance.md").read_text() == once


def test_medians_are_taken_of_nested_figures() -> None:
    assert middle([{"a": 1, "b": {"c": 1}}, {"a": 3, "b": {"c": 5}}, {"a": 2, "b": {}}]) == {"a": 2, "b": {"c": 3}}
