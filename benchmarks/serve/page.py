"""Write docs/performance.md between its markers, and its figure, from the JSON of `bench_serve`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- bench-serve: begin -->", "<!-- bench-serve: end -->"


def write_page(report: Mapping[str, Any], docs: Path) -> None:
    """Replace what stands between the markers of performance.md, and write performance.png beside it."""
    page = docs / "performance.md"
    before, rest = page.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n{chr(10).join(tables(report))}\n{END}{after}", "utf-8")
    write_figure(report, docs / "performance.png")


def tables(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables."""
    machine = report["hardware"]
    yield (
        f"`make bench-serve`, commit {report['commit'][:12]}, {report['created'][:10]}, {machine['cpu']}, "
        f"{machine['cores']} cores, client included, {report['rounds']} rounds of {report['seconds']:.0f} s each, "
        f"with one call open of the same {report['single_calls']} prompts for every server; medians over rounds. "
        f"Our encoder ran as `{report['runtime']}`; the median prompt has {report['tokens_median']:.0f} tokens."
    )
    yield ""
    yield "| server | calls open | p50 ms | p95 ms | p99 ms | decisions/s | server CPU ms per decision | memory MB |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, figures in report["variants"].items():
        for concurrency, one in _runs(figures):
            yield (
                f"| {name} | {concurrency} | {one['p50_ms']:.1f} | {one['p95_ms']:.1f} | {one['p99_ms']:.1f} | "
                f"{one['per_second']:.0f} | {one['server_cpu_ms_per_decision']:.2f} | {one['rss_mb']:.0f} |"
            )
    stages = report["variants"]["elle"]["1"]["stages_p50_ms"]
    yield ""
    yield (
        "Where the time of one decision goes, one call open, medians in ms: "
        + ", ".join(
            f"{label} {value:.2f}"
            for label, value in (
                ("waiting", stages["queue"]),
                (f"tokenising (about {report['tokenise_p50_ms']:.2f}) and forward pass", stages["encode"]),
                ("probe", stages["probe"]),
                ("policy", stages["policy"]),
                ("inside the service in all", stages["total"]),
                ("the call around it", report["variants"]["elle"]["1"]["rpc_p50_ms"]),
            )
        )
        + "."
    )
    yield ""
    yield "| ratio, in this run | measured | must |"
    yield "|---|---|---|"
    for name, value in report["ratios"].items():
        must = report["must"].get(name)
        wanted = f"{must['limit']:g}, {'met' if must['met'] else 'NOT met'}" if must else ""
        yield f"| {name.replace('_', ' ')} | {value:.2f} | {wanted} |"


def write_figure(report: Mapping[str, Any], path: Path) -> None:
    """Draw latency against throughput, one line per server."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])
    for name, figures in report["variants"].items():
        runs = _runs(figures)
        axes.plot([one["per_second"] for _, one in runs], [one["p50_ms"] for _, one in runs], "o-", label=name, ms=4)
    axes.set(xscale="log", yscale="log", xlabel="decisions per second", ylabel="latency, p50, ms")
    axes.set_title("1, 8, 32 and 128 open calls, client on the same cores")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _runs(figures: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    return [(int(key), value) for key, value in figures.items() if key.isdigit()]
