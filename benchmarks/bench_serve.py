"""Measure our service against the same service on other people's encoders, in turns of one run; print JSON.

    python -m benchmarks.bench_serve [--rounds 3] [--seconds 4] [--quick] [--figure FILE.png] [--write]
    python -m benchmarks.bench_serve --only bare [--rounds 60]
    python -m benchmarks.bench_serve --only cores [--rounds 10]

Every server is up from the start; each round asks each of them in turn, so that a noisy machine slows all. Prompts are
those of ../shared/data, mixed lengths, each sent once in a while and never answered from a cache. The client is a
process of its own on the same cores. `--write` rewrites the tables of docs/performance.md. `--only bare` compares a
lone call with one of a gRPC server that does nothing but encode, in many short rounds, which is steadier. `--only
cores` measures throughput by cores and worker processes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.encoders import TORCH_THREADS
from benchmarks.serve.page import write_figure, write_page
from benchmarks.serve.processes import Server, load, serving
from benchmarks.serve.prompts import read_prompts
from probes.encoders.exported import RUNTIME_VARIABLE, load_exported_encoder
from probes.encoders.spec import MINILM_L6
from probes.measures.bootstrap import bootstrap

ROOT = Path(__file__).parent.parent

OURS = (
    "-c",
    "from router.cli.main import main; main()",
    "serve",
    "--port",
    "0",
    "--cache-entries",
    "0",
    "--max-pending",
    "4096",
)


@dataclass(frozen=True)
class Variant:
    """A server to measure: its commands, at which concurrency it is asked (slow ones not at all of them), and settings.

    `runtime` is that of our encoder; empty takes the one that would serve. `cores` are those that the server may use,
    as taskset takes them; empty for all.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    concurrency: tuple[int, ...] = (1, 8, 32, 128)
    torch_threads: int = 1
    runtime: str = ""
    cores: str = ""


def other(name: str, *options: str) -> tuple[str, ...]:
    """Return the command that starts our service on another encoder."""
    return ("-m", "benchmarks.serve.server", name, *options)


OURS_NAME, BARE_NAME = "elle", "bare gRPC and our encoder"

VARIANTS = (
    Variant(OURS_NAME, (OURS,)),
    Variant("elle, 2 processes", ((*OURS, "--workers", "2"),), (8, 32, 128)),
    Variant("elle, 1 thread", ((*OURS, "--threads", "1"),), (1,)),
    Variant("elle on ONNX Runtime", (OURS,), (1, 32), runtime="onnxruntime"),
    Variant(BARE_NAME, (("-m", "benchmarks.serve.bare"),), (1,)),
    Variant("bare gRPC, nothing done", (("-m", "benchmarks.serve.bare", "--empty"),), (1,)),
    Variant("elle-float32", (other("elle-float32"),), (1, 32)),
    Variant("sentence-transformers", (other("sentence-transformers"),), (1, 8, 32, 128)),
    Variant("sentence-transformers, torch on 2 threads", (other("sentence-transformers", "--threads", "1"),), (1,), 2),
    Variant(
        "sentence-transformers, 2 processes",
        (
            other("sentence-transformers", "--threads", "1", "--share-port"),
            other("sentence-transformers", "--threads", "1", "--share-port", "--port", "{port}"),
        ),
        (8, 32),
    ),
    Variant("modernbert-base", (other("modernbert-base"),), (1,)),
    Variant("xlm-r-base", (other("xlm-r-base"),), (1,)),
    Variant("litellm-heuristic", (other("litellm-heuristic"),), (1, 8, 32, 128)),
)

#: What `--only` measures. The client uses all cores.
SETS = {
    "bare": (Variant(OURS_NAME, (OURS,), (1,)), Variant(BARE_NAME, (("-m", "benchmarks.serve.bare"),), (1,))),
    "cores": (
        Variant("1 core", (OURS,), (8, 32), cores="0"),
        Variant("2 cores", (OURS,), (8, 32), cores="0,1"),
        Variant("2 cores, 2 workers", ((*OURS, "--workers", "2"),), (8, 32), cores="0,1"),
    ),
}

#: How many rounds there are if nobody says, as more of the short ones are needed.
ROUNDS = {"": 3, "bare": 60, "cores": 10}

#: Prompts of a round with one call open, drawn anew each round.
SINGLE_CALLS = 50

#: What issues 5 and 21 demand: name -> (least or most, limit).
MUST: Mapping[str, tuple[str, float]] = {
    "single_times_faster_than_sentence_transformers": ("least", 4.0),
    "single_times_faster_than_xlm_r": ("least", 25.0),
    "throughput_at_32_over_best_sentence_transformers": ("least", 4.0),
    "p99_over_p50_at_32": ("most", 4.0),
    "time_of_a_lone_call_over_bare_grpc": ("most", 1.2),
    "cpu_of_a_lone_call_over_bare_grpc": ("most", 1.1),
}


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=SETS, default="", help="measure these servers only")
    parser.add_argument("--quick", action="store_true", help="a second each, our service only: checks the script")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--write", action="store_true", help="rewrite docs/performance.md and its figure")
    asked = parser.parse_args()
    variants = VARIANTS[:1] if asked.quick else SETS.get(asked.only, VARIANTS)
    rounds, seconds = (1, 1.0) if asked.quick else (asked.rounds or ROUNDS[asked.only], asked.seconds)
    prompts = read_prompts()
    starts, runs = measure(variants, prompts, rounds, seconds)
    measured = {
        name: {"start_s": starts[name], **{str(c): middle(of_one) for c, of_one in by_concurrency.items()}}
        for name, by_concurrency in runs.items()
    }
    report: dict[str, Any] = {
        "commit": commit(),
        "hardware": hardware(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": rounds,
        "seconds": seconds,
        "single_calls": SINGLE_CALLS,
        "prompts": {"n": len(prompts), "characters_median": median(map(len, prompts))},
        **describe_encoder(prompts),
        "variants": measured,
    }
    if not asked.quick and asked.only != "cores":
        report["over_bare"] = over_bare(runs[OURS_NAME][1], runs[BARE_NAME][1])
    if not (asked.quick or asked.only):
        ratios = compare(measured) | {f"{name}_over_bare_grpc": found[0] for name, found in report["over_bare"].items()}
        report["ratios"] = ratios
        report["must"] = {
            name: {"limit": limit, "met": met(ratios[name], *MUST[name])} for name, (_, limit) in MUST.items()
        }
    if asked.figure:
        write_figure(report, asked.figure)
    if asked.write:
        write_page(report, ROOT / "docs")
    print(json.dumps(report, indent=2))


def measure(
    variants: Sequence[Variant], prompts: Sequence[str], rounds: int, seconds: float
) -> tuple[dict[str, float], dict[str, dict[int, list[dict[str, Any]]]]]:
    """Return for each variant how long it took to start, and for each concurrency the figures of every round.

    The variants take turns, in an order that changes from round to round.
    """
    found: dict[str, dict[int, list[dict[str, Any]]]] = {v.name: {c: [] for c in v.concurrency} for v in variants}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "prompts.json"
        file.write_text(json.dumps(list(prompts)), "utf-8")
        servers: dict[str, Server] = {}
        for v in variants:
            env = {TORCH_THREADS: str(v.torch_threads), "OMP_NUM_THREADS": str(v.torch_threads)}
            env |= {RUNTIME_VARIABLE: v.runtime} if v.runtime else {}
            servers[v.name] = stack.enter_context(serving(*v.commands, env=env, cores=v.cores))
        for number in range(rounds):
            for variant in variants[:: -1 if number % 2 else 1]:
                for concurrency in variant.concurrency:
                    # One call at a time: the same prompts for the slow and the fast, whose medians are compared.
                    limit = ("--calls", str(SINGLE_CALLS)) if concurrency == 1 else ("--seconds", str(seconds))
                    options = ("--concurrency", str(concurrency), *limit, "--seed", str(number))
                    found[variant.name][concurrency].append(load(servers[variant.name], file, *options))
        return {name: server.start_s for name, server in servers.items()}, found


def over_bare(ours: Sequence[Mapping[str, Any]], bare: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return by how much a lone call of ours takes longer than a bare one, and how much more computing it takes.

    Each is the median over rounds of the ratio within a round, with its 95 % bootstrap interval.
    """
    names = {"time_of_a_lone_call": "p50_ms", "cpu_of_a_lone_call": "server_cpu_ms_per_decision"}
    found = {}
    for name, figure in names.items():
        ratios = np.array([one[figure] / other[figure] for one, other in zip(ours, bare, strict=True)])
        spread = bootstrap(lambda sample: float(np.median(sample)), ratios)
        found[name] = [spread.value, spread.low, spread.high]
    return found


def describe_encoder(prompts: Sequence[str]) -> dict[str, Any]:
    """Return which runtime serves here, how many tokens prompts have, and how long tokenising one takes."""
    encoder = load_exported_encoder(MINILM_L6)
    spent, lengths = [], []
    for prompt in prompts[:1000]:
        begun = time.perf_counter()
        lengths.append(len(encoder.tokenize(prompt)))
        spent.append((time.perf_counter() - begun) * 1e3)
    return {"runtime": encoder.runtime, "tokens_median": median(lengths), "tokenise_p50_ms": median(spent)}


def middle(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median over runs of every number, nested ones too."""
    return {
        key: middle([run[key] for run in runs if key in run])
        if isinstance(value, dict)
        else median(run[key] for run in runs if key in run)
        for key, value in runs[0].items()
    }


def compare(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the ratios that we claim, from the medians of one run."""
    one = {name: figures["1"]["p50_ms"] for name, figures in measured.items() if "1" in figures}
    at_32 = {name: figures["32"] for name, figures in measured.items() if "32" in figures}
    ours = max((at_32[name] for name in ("elle", "elle, 2 processes")), key=lambda figures: figures["per_second"])
    theirs = max(at_32[name]["per_second"] for name in at_32 if name.startswith("sentence-transformers"))
    return {
        "single_times_faster_than_sentence_transformers": one["sentence-transformers"] / one["elle"],
        "single_times_faster_than_sentence_transformers_on_2_threads": one["sentence-transformers, torch on 2 threads"]
        / one["elle"],
        "single_times_faster_than_xlm_r": one["xlm-r-base"] / one["elle"],
        "single_times_faster_than_modernbert": one["modernbert-base"] / one["elle"],
        "single_times_faster_than_own_without_idle_core": one["elle, 1 thread"] / one["elle"],
        "single_times_faster_than_own_float32": one["elle-float32"] / one["elle"],
        "single_times_faster_than_own_int8_in_onnx_runtime": one["elle on ONNX Runtime"] / one["elle"],
        "throughput_at_32_over_best_sentence_transformers": ours["per_second"] / theirs,
        "p99_over_p50_at_32": ours["p99_ms"] / ours["p50_ms"],
        "all_but_encoding_p50_ms_at_1": measured["elle"]["1"]["all_but_encoding_p50_ms"],
        "all_but_encoding_p50_ms_at_1_of_bare_grpc": measured[BARE_NAME]["1"]["all_but_encoding_p50_ms"],
        "p50_ms_at_1_of_a_grpc_call_that_does_nothing": one["bare gRPC, nothing done"],
        "decisions_per_second_at_32": ours["per_second"],
    }


def met(value: float, direction: str, limit: float) -> bool:
    """Return whether a figure keeps its limit."""
    return value >= limit if direction == "least" else value <= limit


if __name__ == "__main__":
    main()
