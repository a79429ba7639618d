"""Print the result of `elle tune` as text and tables for people; what is certified comes first."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from router.policies.certificate import COVERAGE, say_about
from router.tuning.certifying.results.label_plan import LabelPlan
from router.tuning.certifying.results.tuning_result import GroupResult, RuleResult, TuningResult


def print_tuning_result(result: TuningResult, console: Console) -> None:
    """Print the result: each rule, the data behind it, the requests it covers, the groups, the plan and the notes."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, highlight=False, style=style)

    for name, rule in {"": result.main, **result.profiles}.items():
        for line in _rule_lines(result, rule, f"Profile {name}: " if name else ""):
            say(line)
    for line in _population_lines(result):
        say(line)
    if result.groups:
        console.print(_group_table(result))
    if result.plan:
        console.print(f"Certified away from the reference at a loss of {result.plan.limit:g}, by calibration labels")
        console.print(_curve_table(result.plan))
        console.print(_label_table(result.plan))
    for note in result.notes:
        say(f"Note: {note}", "dim")
    if result.policy_file:
        valid = (
            f", certificate good until {result.expires.date()}" if result.main.certified else ", WITHOUT certificate"
        )
        say(f"Wrote {result.policy_file}{valid}.")


def _rule_lines(result: TuningResult, rule: RuleResult, head: str) -> Iterator[str]:
    """Yield what is certified of one rule, and what the rule does. `head` names the profile, if it is one."""
    for t in rule.targets:
        certified = "certified" if t.certified else "NOT certified"
        yield (
            f"{head}{t.says}: {certified} at confidence {1 - t.delta:.4g} (it is {t.estimate:.4g} on these data, and "
            f"its bound is {t.bound:.4g}, by the method {t.method})"
        )
    if not rule.certified:
        yield head + _not_possible(rule)
    if (r := rule.rule) is not None:
        what = f"thresholds {list(r.thresholds)}" if r.thresholds else f"quality per USD {r.quality_per_usd:g}"
        shares = ", ".join(f"{candidate} {share:.1%}" for candidate, share in r.shares.items() if share)
        saved = f", {r.expected_cost_saving:.1%} of its cost saved" if r.expected_cost_saving is not None else ""
        yield (
            f"{head}{what}: {shares}. Quality {r.quality:.4f}, always {result.reference} "
            f"{result.reference_quality:.4f}{saved}."
        )


def _not_possible(rule: RuleResult) -> str:
    if rule.more_labels is not None:
        return f"Not possible with these data; about {rule.more_labels:,} more labels would be needed."
    return (
        "Not possible with these data, and no number of labels is known to be enough: the estimate itself breaks the "
        "target, or is too close to it."
    )


def _population_lines(result: TuningResult) -> Iterator[str]:
    """Yield which prompts the result rests on, which requests the certificate covers, and how often it was tried."""
    yield (
        f"The result rests on {result.n_calibration:,} prompts that the fit did not see "
        f"({result.n_seen_in_fit:,} were set aside because it did, {result.n_incomplete:,} because some model has no "
        f"score for them); {result.n_repeated:,} of them repeat an earlier text. {result.correction}"
    )
    yield f"Quality here is {say_about(result.about, result.n_human)}."
    if result.main.certified:
        yield (
            f"The certificate covers {COVERAGE[result.covers]}. It is about answers of the chosen model, not about "
            "answers of another one while the chosen model is down."
        )
    if result.changed_share:
        yield (f"It says nothing about requests like {result.changed_share:.1%} of the rows, whose text the fit saw.")
    if result.attempts is not None and result.attempts > 1:
        yield (
            f"This is attempt {result.attempts} with these data. The confidence is that of a single attempt; if you "
            "try until one attempt succeeds, it is lower."
        )


def _group_table(result: TuningResult) -> Table:
    table = Table(title="Each group by itself (confidence holds group by group)", box=None, title_justify="left")
    table.add_column("group")
    for header in ("prompts", "rule", "weak share", "loss", "bound", "more labels"):
        table.add_column(header, justify="right")
    for label, group in result.groups.items():
        table.add_row(label or "(none)", *_group_cells(group))
    return table


def _group_cells(g: GroupResult) -> tuple[str, ...]:
    rule = f"{g.thresholds}" if g.thresholds else "-" if g.quality_per_usd is None else f"{g.quality_per_usd:g}"
    share = "-" if g.weak_share is None else f"{g.weak_share:.1%}"
    more = "-" if g.certified else f"{g.more_labels:,}" if g.more_labels else "no number"
    return (f"{g.n:,}", rule, share, f"{g.loss_estimate:.4f}", f"{g.loss_upper_bound:.4f}", more)


def _curve_table(plan: LabelPlan) -> Table:
    table = Table(box=None)
    for header in ("labels", "share", "95 % of the curve", ""):
        table.add_column(header, justify="right")
    for p in plan.curve:
        interval = "-" if p.low is None or p.high is None else f"{p.low:.1%} to {p.high:.1%}"
        table.add_row(f"{p.n:,}", f"{p.share:.1%}", interval, "projected" if p.projected else "measured")
    return table


def _label_table(plan: LabelPlan) -> Table:
    table = Table(title="Labels that would certify", box=None, title_justify="left")
    for header in ("share away", "loss here", "labels in total"):
        table.add_column(header, justify="right")
    for step in plan.steps:
        labels = f"{step.labels:,}" if step.labels is not None else "no number"
        table.add_row(f"{step.share:.1%}", f"{step.loss_estimate:.4f}", labels)
    return table
