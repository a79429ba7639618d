"""Lead from a log to graded outcomes: choose prompts, plan, ask every candidate, grade, and write (`collect`)."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.collecting.calls.asking import Asker, AskingLimits
from router.collecting.calls.budget import NOTHING, Budget, Cost
from router.collecting.calls.panel import Panel
from router.collecting.calls.store import CallStore, open_store
from router.collecting.graders.base import Grader, GraderError
from router.collecting.graders.naming import grader_named, grader_names
from router.collecting.jobs import CollectProgress, Jobs
from router.collecting.plan import CollectionPlan, model_plans, total_cost
from router.collecting.prompts import PromptLog, read_prompt_log
from router.collecting.records import WrittenOutcomes, may_replace, write_records
from router.collecting.sampling import ChosenPrompt, Selection, choose_prompts
from router.collecting.work import MissingCalls, Work, graders_for, missing
from router.errors import ConfigError
from router.money import usd_text
from router.policies.policy_file import read_policy_file
from router.serving.http_server import serve_on_loopback
from router.tuning.outcomes.feature_cache import Progress

#: The name of the store beside the file of outcomes, so that all collections of a folder share what they paid for.
STORE_NAME = "elle-collect.sqlite"


@dataclass(frozen=True)
class CollectOptions:
    """Says which prompts are asked, how answers are graded, and what may be spent.

    Attributes:
        selection: which prompts are asked.
        graders: graders by name, with parameters as in `number:tolerance=0.01`; the first one gives the score. Empty
            takes one that fits the columns of the log.
        judges: a policy file that describes judges which need more than a model string; None if none does.
        budget_usd: the most that may be spent for the file of outcomes, over all runs; None for no bound.
        max_calls: the most calls that may be answered for it; None for no bound.
        limits: how fast each model is asked.
        max_output_tokens: the longest answer, which every call asks for, so that its cost is bounded.
        store: the file of answers; None takes STORE_NAME beside the outcomes.
        format: the format of the log, as `elle import` names it; None recognises it.
        force: whether an existing file of outcomes that is not ours may be replaced.
    """

    selection: Selection = field(default_factory=Selection)
    graders: tuple[str, ...] = ()
    judges: Path | None = None
    budget_usd: float | None = None
    max_calls: int | None = None
    limits: AskingLimits = field(default_factory=AskingLimits)
    max_output_tokens: int = 1024
    store: Path | None = None
    format: str | None = None
    force: bool = False


@dataclass(frozen=True)
class CollectSummary:
    """What a collection did.

    Attributes:
        out: the file of outcomes. written: what it holds.
        n_prompts: the prompts that were chosen. n_done: those that were asked and graded.
        spent_usd, calls: of all runs that wrote this file; a call that may have been answered counts as answered.
        stopped: why not all prompts are done; None if they are.
    """

    out: str
    written: WrittenOutcomes
    n_prompts: int
    n_done: int
    spent_usd: float
    calls: int
    stopped: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Prepared:
    """Everything that is known before the first call."""

    log: PromptLog
    work: Work
    chosen: tuple[ChosenPrompt, ...]
    wanted: tuple[MissingCalls, ...]
    asker: Asker
    store: CallStore
    spent: Cost


def plan_collection(
    paths: Sequence[Path], policy: Path, out: Path, options: CollectOptions, on_progress: Progress | None = None
) -> CollectionPlan:
    """Return what `collect` would ask, cost and take. Nothing is asked. Raises what `collect` raises before it asks."""
    with _prepared(paths, policy, out, options, on_progress) as prepared:
        return _plan(prepared, options)


def collect(
    paths: Sequence[Path],
    policy: Path,
    out: Path,
    options: CollectOptions,
    watch: CollectionListener | None = None,
) -> CollectSummary | None:
    """Ask every candidate of a policy the prompts of a log, grade the answers, and write the outcomes to `out`.

    Return None if `watch.confirm` refuses the plan. Everything that is paid for is kept at once, so that the same call
    after an interruption goes on where it stopped. If it has to stop early, what is done is written all the same.

    Raises DataError, ConfigError, GraderError or StoreError for input that cannot be used, before anything is spent.
    """
    watch = watch or CollectionListener()
    with _prepared(paths, policy, out, options, watch.on_encoding) as prepared:
        plan = _plan(prepared, options)
        if not watch.confirm(plan):
            return None
        budget = Budget(options.budget_usd, options.max_calls, prepared.spent)
        jobs = Jobs(prepared.work, prepared.asker, prepared.store, budget)
        try:
            stopped = asyncio.run(_run(prepared, jobs, watch.on_progress, plan))
        except BaseExceptionGroup as group:
            # Groups of tasks wrap what one of them raised, such as that the disk is full.
            raise _first_of(group) from group
        done = jobs.in_order()
        written, sha256 = write_records(prepared.work, done, out)
        prepared.store.set_written(str(out.resolve()), sha256)
        return CollectSummary(
            out=str(out),
            written=written,
            n_prompts=len(prepared.chosen),
            n_done=len(done),
            spent_usd=budget.spent.usd,
            calls=budget.spent.calls,
            stopped=stopped,
        )


@dataclass(frozen=True)
class CollectionListener:
    """Who is told of a collection while it runs.

    Attributes:
        confirm: is given the plan before anything is spent, and says whether to go on.
        on_progress: is told after each prompt. on_encoding: is told while prompts are encoded.
    """

    confirm: Callable[[CollectionPlan], bool] = lambda plan: True
    on_progress: Callable[[CollectProgress], None] = lambda progress: None
    on_encoding: Progress | None = None


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _run(
    prepared: _Prepared, jobs: Jobs, on_progress: Callable[[CollectProgress], None], plan: CollectionPlan
) -> str | None:
    async with contextlib.AsyncExitStack() as stack:
        canned_url = None
        if prepared.work.panel.uses_canned:
            canned_url = await stack.enter_async_context(serve_on_loopback())
        await stack.enter_async_context(prepared.asker.running(canned_url))

        def report(n_done: int, spent: Cost) -> None:
            expected = None if plan.expected_usd is None else prepared.spent.usd + plan.expected_usd
            on_progress(CollectProgress(n_done, len(prepared.chosen), spent.usd, expected))

        return await jobs.run(zip(prepared.chosen, prepared.wanted, strict=True), report)


@contextlib.contextmanager
def _prepared(
    paths: Sequence[Path], policy: Path, out: Path, options: CollectOptions, on_progress: Progress | None
) -> Iterator[_Prepared]:
    if out.suffix.lower() != ".jsonl":
        raise DataError(f"--out must end in .jsonl, got {out.name}.")
    if not out.absolute().parent.is_dir():
        raise DataError(f"the folder of {out} must exist; create it first.")
    with open_store(options.store or out.with_name(STORE_NAME)) as store:
        if out.exists() and not options.force and not may_replace(out, store):
            raise DataError(f"{out} exists; give --force to replace it, or another --out.")
        candidates = read_policy_file(policy).candidates
        described = read_policy_file(options.judges).candidates if options.judges else ()
        log = read_prompt_log(paths, Panel(candidates), options.format)
        graders = _graders(options.graders, log)
        panel = Panel.of(candidates, (model for grader in graders for model in grader.models), described)
        panel.check(priced=options.budget_usd is not None)
        work = Work(panel, graders, _parameters(options, graders))
        chosen = choose_prompts(log, options.selection, on_progress)
        purpose = str(out.resolve())
        asker = Asker(panel, store, purpose, _of_members(options.limits, panel))
        wanted = tuple(missing(work, one, asker, store) for one in chosen)
        yield _Prepared(log, work, chosen, wanted, asker, store, Cost(*store.spent(purpose)))


def _graders(names: Sequence[str], log: PromptLog) -> tuple[Grader, ...]:
    names = tuple(names) or graders_for(log.samples)
    if not names:
        raise GraderError(
            "say with --grader how answers are graded, because the log has no column reference or choices; there are "
            f"{', '.join(grader_names())}."
        )
    graders = tuple(grader_named(name) for name in names)
    for grader in graders:
        for column in sorted(grader.needs):
            if not log.having(column):
                raise GraderError(
                    f"the grader {grader.name} needs the column {column}, and no prompt of the log has it."
                )
    if len({grader.name for grader in graders}) < len(graders):
        raise GraderError("each grader can be named once; collect again with the other one, which pays nothing twice.")
    return graders


def _parameters(options: CollectOptions, graders: Sequence[Grader]) -> Mapping[str, Any]:
    found: dict[str, Any] = {"max_tokens": options.max_output_tokens}
    if any(grader.needs_token_loss for grader in graders):
        found["logprobs"] = True
    return found


def _of_members(limits: AskingLimits, panel: Panel) -> AskingLimits:
    """Return the limits by the names that the policy gives the models. Raises ConfigError for an unknown name."""
    return replace(
        limits, per_minute={name and panel.member(name).name: rate for name, rate in limits.per_minute.items()}
    )


def _plan(prepared: _Prepared, options: CollectOptions) -> CollectionPlan:
    work, wanted = prepared.work, prepared.wanted
    models = model_plans(work, wanted, options.limits)
    worst = total_cost(work, wanted, prepared.asker)
    known = [one.expected_usd for one in models if one.expected_usd is not None]
    first = next((one.worst(work, prepared.asker) for one in wanted if one.calls or one.judging), NOTHING)
    is_priced = len(known) == len(models)
    _check_bounds(first, options)
    return CollectionPlan(
        n_log=len(prepared.log.samples),
        n_prompts=len(prepared.chosen),
        left_out=prepared.log.left_out,
        drawn=options.selection.how,
        graders=tuple(grader.name for grader in work.graders),
        models=models,
        calls=sum(one.calls for one in models),
        expected_usd=sum(known) if is_priced else None,
        most_usd=worst.usd if is_priced else None,
        spent_usd=prepared.spent.usd,
        first_usd=first.usd,
        minutes=max(one.minutes for one in models),
        notes=tuple(_notes(prepared)),
    )


def _check_bounds(first: Cost, options: CollectOptions) -> None:
    """Raise ConfigError if the bounds are too small for a single prompt."""
    if options.budget_usd is not None and not math.isfinite(options.budget_usd):
        raise ConfigError(f"--budget-usd must be a number of USD, got {options.budget_usd}.")
    if options.budget_usd is not None and first.usd > options.budget_usd:
        raise ConfigError(
            f"--budget-usd must allow for one prompt, which can cost {usd_text(first.usd)} at most; got "
            f"{options.budget_usd:g}. Raise it, or lower --max-output-tokens."
        )
    if options.max_calls is not None and first.calls > options.max_calls:
        raise ConfigError(
            f"--max-calls must allow for one prompt, which needs {first.calls} calls; got {options.max_calls}."
        )


def _notes(prepared: _Prepared) -> Iterator[str]:
    for grader in prepared.work.graders:
        for column in sorted(grader.needs):
            if lacking := sum(not getattr(one.sample, column) for one in prepared.chosen):
                yield f"{lacking} of the chosen prompts have no {column}, so that {grader.name} cannot grade them"
    if prepared.work.panel.uses_canned:
        yield "the built-in upstream answers, so nothing is charged; USD are what the same tokens of a model would cost"
    if len(prepared.chosen) == len(prepared.log.samples):
        yield "every prompt of the log is chosen"
