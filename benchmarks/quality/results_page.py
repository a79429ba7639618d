"""Write docs/results.md and the table in README.md from the benchmark's JSON and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.default_probe.page import default_section
from benchmarks.quality.figures import signed_with_interval, with_interval
from benchmarks.quality.new_model import new_model_section
from benchmarks.quality.tasks import task_section

BEGIN, END = "<!-- results -->", "<!-- /results -->"

NAMES = {
    "probe": "**ELLE probe** (calibrated predicted gain)",
    "logistic": "logistic regression, same embeddings",
    "knn": "kNN, same embeddings",
    "tfidf_ridge": "TF-IDF ridge",
    "per_group_best": "mean gain of the prompt's group",
    "prompt_length": "prompt length",
    "litellm_heuristic": "LiteLLM `heuristic`",
    "litellm_heuristic_v2": "LiteLLM `heuristic_v2`",
    "random": "random",
    "oracle": "oracle (knows both outcomes)",
}

#: The rows of README.md: the probe, the baseline that comes closest to it, and a router that needs no fitting.
README_ROWS = ("probe", "logistic", "litellm_heuristic")

DATA_SETS = {"mmlu": ("MMLU", "subject"), "gsm8k": ("GSM8K", ""), "mmlu_pro": ("MMLU-Pro", "category")}

SCRIPT = "`python -m benchmarks.bench_quality`"


def write_pages(found: Mapping[str, Any], root: Path) -> None:
    """Rewrite docs/results.md, and README.md between its two markers; everything else in it stays.

    Raises ValueError if README.md lacks a marker.
    """
    readme = root / "README.md"
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} must hold {BEGIN} and {END}, in this order.")
    (root / "docs" / "results.md").write_text("\n".join(results_page(found)) + "\n", "utf-8")
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(readme_table(found)) + f"\n{END}{after}", "utf-8")


def readme_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the APGR of three rankings on every split, and a sentence each on transfer and on many models."""
    columns = [(data, split) for data in DATA_SETS for split in ("random", "group") if split in found[data]["splits"]]
    yield "APGR is the share of the quality gap between the two models that a ranking recovers, averaged over all"
    yield "shares of calls to the strong model; random choice has 0.5. All prompts were left out of the fit;"
    yield "brackets are 95 % bootstrap intervals."
    yield _where(found)
    yield ""
    yield "| ranking by | " + " | ".join(_heading(*column) for column in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name in README_ROWS:
        rankings = [found[data]["splits"][split]["rankings"].get(name) for data, split in columns]
        cells = ("not run" if ranking is None else with_interval(ranking["apgr"]) for ranking in rankings)
        yield f"| {NAMES[name]} | " + " | ".join(cells) + " |"
    yield ""
    yield _transfer_sentence(found["transfer"])
    yield _many_sentence(found["many_models"])
    yield ""
    yield f"[docs/results.md](docs/results.md) has every figure and every baseline; {SCRIPT} makes both."


def results_page(found: Mapping[str, Any]) -> Iterator[str]:
    """Return the page with everything that was measured."""
    yield "# Results"
    yield ""
    yield "For readers who want every figure on the quality of routing, good or bad."
    yield ""
    yield f"Written by {SCRIPT} from its own output; do not edit. {_where(found)}"
    yield "Every figure is about prompts that were left out of the fit. *Random folds* leave out prompts by their"
    yield "text: expect these figures for prompts of the kinds that were fitted on. *Held-out* splits leave out"
    yield "whole groups: expect these figures for kinds of prompts that were not fitted on. Brackets are 95 %"
    yield "bootstrap intervals over prompt texts. *Ahead* is the probe's lead in APGR over that row, on the same"
    yield "resamples. Trained baselines see the same folds as the probe. AUROC and ECE are about the failure of the"
    yield "weak model. The risks of the baselines are calibrated on these very prompts, which is an advantage;"
    yield "those of the probe are not. LiteLLM's classifiers are run for real, and rank by the number that each"
    yield "compares with its own threshold (`litellm_baseline.py`)."
    yield ""
    yield "[glossary.md](glossary.md) says what the words mean. CPT20 is the share of calls to the strong model"
    yield "that recovers 20 % of the quality gap; AIQ is the mean quality under the concave hull of the curve of"
    yield "quality over cost."
    for data, (name, group) in DATA_SETS.items():
        yield ""
        yield from _pair(found[data], name, group)
    yield ""
    yield from _transfer(found["transfer"])
    yield ""
    yield from _many(found["many_models"])
    yield ""
    yield from _held_out(found["held_out_groups"])
    for section, part in ((task_section, "tasks"), (new_model_section, "new_model"), (default_section, "default")):
        yield ""
        yield from section(found[part])


def _pair(found: Mapping[str, Any], name: str, group: str) -> Iterator[str]:
    (weak, weak_score), (strong, strong_score) = found["models"].items()
    yield f"## {name}: {strong} over {weak}"
    yield ""
    yield f"{found['n']:,} prompts, {found['n_texts']:,} distinct; mean scores {strong_score:.3f} and {weak_score:.3f}."
    for split, one in found["splits"].items():
        yield ""
        yield f"### {'Random folds' if split == 'random' else f'Held-out {group}'}"
        yield ""
        yield "| ranking by | APGR | ahead | CPT20 | CPT50 | CPT80 | AIQ | AUROC | ECE |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for key, label in NAMES.items():
            if key in one["rankings"]:
                yield _row(label, one["rankings"][key])
        for key, why in one["not_run"].items():
            yield f"\nNot run: {key}: {why}"
        yield ""
        yield _slices_sentence(one["slices"])


def _row(label: str, ranking: Mapping[str, Any]) -> str:
    ahead = ranking.get("probe_ahead_by", {}).get("apgr")
    cells = [
        with_interval(ranking["apgr"]),
        "" if ahead is None else signed_with_interval(ahead),
        *(f"{100 * ranking[name]:.1f} %" for name in ("cpt20", "cpt50", "cpt80")),
        *("-" if ranking[name] is None else f"{ranking[name]:.3f}" for name in ("aiq", "auroc", "ece")),
    ]
    return f"| {label} | " + " | ".join(cells) + " |"


def _slices_sentence(slices: Mapping[str, Mapping[str, Any]]) -> str:
    said = []
    for by, parts in slices.items():
        worse = [f"{label} ({one['lift']['value']:+.3f})" for label, one in parts.items() if one["lift"]["high"] < 0]
        better = sum(one["lift"]["low"] > 0 for one in parts.values())
        listed = f": {', '.join(worse)}" if worse else ""
        said.append(
            f"By {by}, of {len(parts)} slices {better} are significantly above random choice at equal strong share, "
            f"{len(worse)} below{listed}."
        )
    return " ".join(said) + " (Each at 95 %, without correction for their number.)"


def _transfer(found: Mapping[str, Any]) -> Iterator[str]:
    zero = found["no_new_labels"]
    yield "## From one task to another: MMLU to GSM8K"
    yield ""
    yield f"Fitted on {found['n_old']:,} MMLU prompts and judged on GSM8K without any of its labels: APGR"
    yield f"{with_interval(zero['apgr'])} (bootstrap over prompts), ECE {zero['ece']:.3f}."
    yield ""
    yield "With labels (`elle fit --prior`): means over random draws of the labelled prompts, each judged on the"
    yield "others. Brackets are 95 % intervals of that mean, paired for *ahead of*; the prompts are the same in every"
    yield "draw, so they say nothing about other tasks. *Transferred*: the old probe as it is; *uncalibrated*: ranked"
    yield "by its predictions before calibration. *New alone*: a ridge on the new labels, ranked by its predictions, as"
    yield "maps fitted to so few labels make the ranking worse. *Weight*: what one old label counted, mean over draws."
    yield ""
    columns = ("new task", "labels", "adapted", "transferred", "uncalibrated", "new alone", "ahead of transferred")
    more = ("of uncalibrated", "of new alone", "ECE, transferred and adapted", "weight")
    yield "| " + " | ".join([*columns, *more]) + " |"
    yield "|---" * (len(columns) + len(more)) + "|"
    yield from _transfer_rows("GSM8K", found)
    for name, one in found["domains"].items():
        yield from _transfer_rows(f"{name} of MMLU ({one['n_new']:,} prompts)", one)
    yield ""
    yield f"{found['draws']} draws. A domain of MMLU is cut out and the other subjects are the old task; law, medicine,"
    yield "history, science, psychology and GSM8K were looked at when the recipe was chosen, the others were not."


def _transfer_rows(task: str, found: Mapping[str, Any]) -> Iterator[str]:
    for n, one in found["with_labels"].items():
        cells = [
            *(f"{one['apgr'][name]['value']:.3f}" for name in ("adapted", "old", "old_raw", "new")),
            *(signed_with_interval(one["ahead_of"][name]) for name in ("old", "old_raw", "new")),
            f"{one['ece']['old']:.3f}, {one['ece']['adapted']:.3f}",
            f"{sum(one['weights']) / len(one['weights']):.2g}",
        ]
        yield f"| {task} | {n} | " + " | ".join(cells) + " |"


def _many(found: Mapping[str, Any]) -> Iterator[str]:
    first = found["splits"]["random"]
    yield f"## Ten models of MMLU-Pro, {first['n']:,} prompts that all answered"
    yield ""
    yield "Each prompt goes to the model with the best predicted quality minus a price times its expected cost, among"
    yield "the models that no cheaper one matches in mean quality; candidates and price are tuned on the other folds,"
    yield "where always asking one model is a choice too. Costs at the list prices in the JSON, input tokens as"
    yield "characters / 4, output tokens as the data estimate them (visible characters / 4), in expectation the model's"
    yield "mean on other folds."
    for split, one in found["splits"].items():
        best = one["best_single"]
        yield ""
        yield f"### {'Random folds' if split == 'random' else 'Held-out category'}, at the quality of {best}"
        yield ""
        yield "| router | quality | above it | cost, USD per 1,000 | share of its cost |"
        yield "|---|---|---|---|---|"
        alone = one["singles"][best]
        yield f"| always {best} | {alone['quality']:.3f} | | {alone['cost_usd_per_1k']:.3f} | |"
        for name, router in one["routers"].items():
            at = router["at_quality_of_best_single"]
            yield (
                f"| {_many_name(name)} | {at['quality']:.3f} | {signed_with_interval(at['quality_above'])} | "
                f"{at['cost_usd_per_1k']:.3f} | {with_interval(at['cost_share'])} |"
            )
        yield ""
        yield "At the cost of each single model:"
        yield ""
        routers = list(one["routers"])
        yield "| model | quality | cost | " + " | ".join(f"{_many_name(name)} above it" for name in routers) + " |"
        yield "|---|---|---|" + "---|" * len(routers)
        for model, alone in one["singles"].items():
            above = [
                signed_with_interval(one["routers"][name]["at_cost_of"][model]["quality_above"]) for name in routers
            ]
            yield f"| {model} | {alone['quality']:.3f} | {alone['cost_usd_per_1k']:.3f} | " + " | ".join(above) + " |"


HELD_OUT = {"mmlu": "MMLU", "mmlu_pro": "MMLU-Pro", "ten_models": "MMLU-Pro, ten models"}


def _held_out(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Served policies on held-out groups"
    yield ""
    yield "Per fold of whole groups: a probe fitted on 55 % of the other prompts, a policy tuned on the rest with"
    yield "confidence 0.95, and its decisions, abstention included, on the groups left out. *Lift*: quality above"
    yield "random choice at equal shares of every model, within groups. *Below*: groups where that is negative by a"
    yield "permutation test, at 2.5 % each without correction (beside it, how many chance alone would give) and at 5 %"
    yield "together after Holm. *Above*: the same on the other side, uncorrected. The certificate promises nothing for"
    yield "groups left out; *lost*, against the reference, says what came of it there."
    yield ""
    columns = ("data", "target", "certified", "by the reference", "abstained", "lost", "lift", "below", "by chance")
    yield "| " + " | ".join((*columns, "after Holm", "above")) + " |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for data, policies in found.items():
        for target, one in policies.items():
            listed = ", ".join(f"{name} ({one['groups'][name]['lift']:+.3f})" for name in one["below_uncorrected"])
            below = f"{len(one['below_uncorrected'])} of {len(one['groups'])}" + (f": {listed}" if listed else "")
            yield (
                f"| {HELD_OUT[data]} | {target} | {one['certified_folds']} of {one['folds']} folds | "
                f"{100 * one['reference_share']:.1f} % | {100 * one['abstained_share']:.1f} % | {one['loss']:+.3f} | "
                f"{one['lift']:+.4f} | {below} | {one['below_expected_by_chance']:.1f} | "
                f"{', '.join(one['below_after_holm']) or 'none'} | {len(one['above_uncorrected'])} |"
            )
    yield ""
    yield f"Smallest p-value after Holm: {_smallest(found)}."


def _smallest(found: Mapping[str, Any]) -> str:
    every = [
        (group["p_below_holm"], group["p_below"], name, HELD_OUT[data], target)
        for data, policies in found.items()
        for target, one in policies.items()
        for name, group in one["groups"].items()
    ]
    holm, alone, name, data, target = min(every)
    return f"{holm:.3f} ({alone:.5f} before; {name}, {data}, {target})"


def _transfer_sentence(found: Mapping[str, Any]) -> str:
    one = found["with_labels"]["100"]
    apgr = {name: f"{figure['value']:.3f}" for name, figure in one["apgr"].items()}
    zero = with_interval(found["no_new_labels"]["apgr"])
    return (
        f"Fitted on MMLU and judged on GSM8K without any of its labels: {zero}; "
        f"adapted with 100 of its labels (`elle fit --prior`) {apgr['adapted']} on average of {found['draws']} draws, "
        f"those labels alone {apgr['new']}, the old probe on the same prompts {apgr['old']}."
    )


def _many_sentence(found: Mapping[str, Any]) -> str:
    one = found["splits"]["random"]
    at = one["routers"]["probe"]["at_quality_of_best_single"]
    return (
        f"Ten models of MMLU-Pro: tuned to the quality of {one['best_single']}, the best single one, the router is at "
        f"{signed_with_interval(at['quality_above'])} of it for {100 * at['cost_share']['value']:.0f} % of its cost "
        f"({100 * at['cost_share']['low']:.0f} to {100 * at['cost_share']['high']:.0f} %)."
    )


def _where(found: Mapping[str, Any]) -> str:
    dirty = " with uncommitted changes" if found["uncommitted_changes"] else ""
    hardware = found["hardware"]
    commits = " and ".join(dict.fromkeys(commit[:12] for commit in found["commits"].values()))
    return (
        f"Commit {commits}{dirty}, {found['created'][:10]}, {hardware['processor']}, "
        f"{hardware['cores']} cores, {sum(found['seconds'].values()):.0f} s from cached features."
    )


def _heading(data: str, split: str) -> str:
    name, group = DATA_SETS[data]
    return name if split == "random" else f"{name}, held-out {group}"


def _many_name(name: str) -> str:
    return {"probe": "ELLE probe", "per_group_best": "best per category", "oracle": "oracle"}.get(name, name)
