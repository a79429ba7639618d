"""Do what `elle start` does: import, collect, fit, tune, evaluate, report, and say how to serve (`start`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from probes.errors import DataError
from router.answering.canned import RIGHT
from router.cli.starting.done_steps import DoneSteps, FileStep, StepDone, StepReport
from router.cli.starting.import_step import import_log, write_candidates
from router.cli.steps.evaluate_files import PolicyFiles, evaluate_policy_files
from router.cli.steps.fit_files import FitOptions, fit_files
from router.collecting.calls.panel import Panel
from router.collecting.collect import CollectionListener, CollectOptions, collect
from router.collecting.plan import HOLDOUT
from router.collecting.prompts import read_prompt_log
from router.collecting.work import graders_for
from router.money import usd_text
from router.plain_json import json_lines
from router.policies.candidates.candidate import Candidate
from router.tuning.certifying.results.result_table import print_tuning_result
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target
from router.tuning.certifying.tune import TuneFiles, tune_command
from router.tuning.judging.baselines import quick_baselines
from router.tuning.judging.policy_evaluation import PolicyEvaluationOptions
from router.tuning.judging.probe_evaluation import EvaluationOptions, NoQualityGapError
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import Progress
from router.tuning.outcomes.holdout import left_out
from router.tuning.outcomes.pair_data import PairFiles
from router.tuning.outcomes.records import read_rows
from router.tuning.reporting.policy_text import policy_json, policy_sentence
from router.tuning.reporting.report import PAGE, write_report

#: The number of bootstrap samples behind each interval of the evaluation and of the report.
RESAMPLES = 1000

#: Fewer prompts with a score of both models cannot be fitted and certified.
FEWEST_PROMPTS = 150


class NotCertifiedError(Exception):
    """The target cannot be certified with these outcomes, so there is no policy; the message says what would help."""


class RefusedError(Exception):
    """The user does not agree to the plan."""


@dataclass(frozen=True)
class StartOptions:
    """Says from which log to which folder `elle start` leads, and between which models.

    Attributes:
        log: the log. out: the folder for all files.
        weak, strong: the candidates; the strong one is the reference.
        max_loss: the most mean quality that may be lost against it, 0 to 1.
        collecting: how prompts are chosen, asked and graded. offline: whether canned upstreams answer.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    log: Path
    out: Path
    weak: Candidate
    strong: Candidate
    max_loss: float
    collecting: CollectOptions
    offline: bool = False
    encoder_dir: Path | None = None


@dataclass(frozen=True)
class Listener:
    """Who hears of the steps: `say` is told of each that ends, `watch` of calls, `console` prints results at length."""

    say: Callable[[StepDone], None]
    watch: CollectionListener
    console: Console
    on_encoding: Progress | None = None


class Start:
    """The files of `elle start` in its folder, and the steps that make them."""

    def __init__(self, options: StartOptions, listener: Listener) -> None:
        self.options, self.listener = options, listener
        folder = options.out
        self.prompts, self.candidates = folder / "prompts.jsonl", folder / "candidates.yaml"
        self.outcomes, self.held_out = folder / "outcomes.jsonl", folder / "held-out.jsonl"
        self.probe, self.policy = folder / "probe", folder / "policy.yaml"
        self.evaluation, self.report = folder / "evaluation.json", folder / "report"

    def steps(self) -> list[StepDone]:
        """Do every step that is not done, in order.

        Raises NotCertifiedError, RefusedError, and what the verbs raise whose work the steps do.
        """
        self.options.out.mkdir(parents=True, exist_ok=True)
        done = DoneSteps(self.options.out)
        found = []
        for make in (self._import, self._collect, self._fit, self._tune, self._evaluate, self._report):
            # A step is made only when the files are there that it reads.
            found.append(done.do(make()))
            self.listener.say(found[-1])
        return found

    def _import(self) -> FileStep:
        options = self.options
        two = (options.weak, options.strong)
        format_name, offline = options.collecting.format, options.offline
        members = [one.model_dump(mode="json") for one in two]
        reads = {"log": options.log, "members": members, "format": format_name, "offline": offline}

        def work() -> StepReport:
            write_candidates(self.candidates, two)
            return StepReport(import_log(options.log, self.prompts, two, format_name, offline=offline))

        return FileStep("import", reads, (self.prompts, self.candidates), work)

    def _collect(self) -> FileStep:
        asked = replace(self.options.collecting, format=None)
        if not asked.graders:
            asked = replace(asked, graders=self._usual_graders())
        selection = asked.selection
        reads = {
            "prompts": self.prompts,
            "candidates": self.candidates,
            "graders": list(asked.graders),
            "judges": asked.judges,
            "chosen": [selection.n, selection.how, selection.seed],
            "longest": asked.max_output_tokens,
            "bounds": [asked.budget_usd, asked.max_calls],
        }
        return FileStep("collect", reads, (self.outcomes,), lambda: self._collected(asked))

    def _usual_graders(self) -> tuple[str, ...]:
        """Return how answers are graded if nobody says: by columns of the log, or by agreement with the strong one."""
        if self.options.offline:
            return (f"contains:text={RIGHT}",)
        strong = self.options.strong.name
        log = read_prompt_log([self.prompts], Panel((self.options.weak, self.options.strong)))
        return graders_for(log.samples) or (f"agreement:model={strong},reference={strong}",)

    def _collected(self, asked: CollectOptions) -> StepReport:
        summary = collect([self.prompts], self.candidates, self.outcomes, asked, self.listener.watch)
        if summary is None:
            raise RefusedError
        written = summary.written
        said = (
            f"{written.n_complete:,} prompts have a score of both models "
            f"({', '.join(f'{model} {mean:.3f}' for model, mean in written.mean_scores.items() if mean is not None)}); "
            f"{summary.calls:,} calls, {usd_text(summary.spent_usd)}."
        )
        if summary.stopped is not None:
            said += f" Stopped early: {summary.stopped}"
        if written.n_complete < FEWEST_PROMPTS:
            raise DataError(
                f"at least {FEWEST_PROMPTS} prompts must have a score of both models to fit and certify; {said} Give a "
                "longer log or a larger budget, and run the same command again: nothing is paid twice."
            )
        return StepReport(said, finished=summary.stopped is None)

    def _fit(self) -> FileStep:
        reads = {"outcomes": self.outcomes, "holdout": HOLDOUT}
        return FileStep("fit", reads, (self.probe, self.held_out), self._fitted)

    def _fitted(self) -> StepReport:
        options = FitOptions(holdout=str(HOLDOUT), name=self.options.out.resolve().name, encoder_dir=self._encoder)
        summary = fit_files([self.outcomes], self.probe, options, self.listener.on_encoding)
        outcomes = read_outcomes(self.outcomes)
        kept = {outcomes.ids[row] for row in left_out(outcomes, HOLDOUT).nonzero()[0]}
        rows = [dict(row.values) for row in read_rows(self.outcomes) if row.values["prompt_id"] in kept]
        self.held_out.write_text(json_lines(rows), "utf-8")
        said = f"Fitted on {summary.n_prompts:,} prompts; {summary.n_held_out:,} are left out to certify with."
        return StepReport(said)

    def _tune(self) -> FileStep:
        reads = {
            "probe": self.probe,
            "outcomes": self.outcomes,
            "candidates": self.candidates,
            "max_loss": self.options.max_loss,
        }
        return FileStep("tune", reads, (self.policy,), self._tuned)

    def _tuned(self) -> StepReport:
        settings = TuneSettings(
            targets=(Target("max_loss", self.options.max_loss),),
            candidates=self.candidates,
            reference=self.options.strong.name_in_probe,
        )
        files = TuneFiles(self.probe, [self.outcomes], out=self.policy, encoder_dir=self._encoder)
        result = tune_command(files, settings, self.listener.on_encoding)
        print_tuning_result(result, self.listener.console)
        if not result.certified:
            raise NotCertifiedError(
                f"a loss of at most {self.options.max_loss:g} cannot be certified with these outcomes. Give a larger "
                "--max-loss or --n, and run the same command again: nothing is paid twice."
            )
        (target,) = result.main.targets
        return StepReport(f"Certified with {result.n_calibration:,} prompts: {target.says} (bound {target.bound:.4f}).")

    def _evaluate(self) -> FileStep:
        reads = {"policy": self.policy, "probe": self.probe, "held_out": self.held_out}
        return FileStep("evaluate", reads, (self.evaluation,), self._evaluated)

    def _evaluated(self) -> StepReport:
        files = PolicyFiles(self.policy, [self.held_out], encoder_dir=self._encoder)
        found = evaluate_policy_files(files, PolicyEvaluationOptions(resamples=RESAMPLES), self.listener.on_encoding)
        self.evaluation.write_text(json.dumps(policy_json(found), indent=2, ensure_ascii=False), "utf-8")
        return StepReport(policy_sentence(found))

    def _report(self) -> FileStep:
        reads = {"policy": self.policy, "probe": self.probe, "held_out": self.held_out}
        return FileStep("report", reads, (self.report,), self._reported)

    def _reported(self) -> StepReport:
        names = self.options.weak.name_in_probe, self.options.strong.name_in_probe
        files = PairFiles(self.probe, [self.held_out], *names, None, self._encoder)
        compared = EvaluationOptions(baselines=quick_baselines(), resamples=RESAMPLES)
        try:
            write_report(files, self.report, compared, self.policy, self.listener.on_encoding)
        except NoQualityGapError as error:
            # The policy is certified all the same, and `evaluate` has said what it does.
            return StepReport(f"There is no report to write: {error}", finished=False)
        return StepReport(f"Wrote {self.report / PAGE}.")

    @property
    def _encoder(self) -> Path | None:
        return self.options.encoder_dir
