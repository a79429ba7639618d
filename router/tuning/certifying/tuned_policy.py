"""From a certified rule to the policy file that serves it, checked on every calibration prompt before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import yaml

from router.policies.certificate import check_certificate, digest_of, is_about_cost, sealed
from router.policies.certificate_record import CertificateRecord, CertifiedTarget
from router.policies.choice import choose
from router.policies.eligibility import check_eligibility
from router.policies.loading import ServedPolicy
from router.policies.policy_file import PolicyFile, Profile, Rule
from router.policies.rules import Judgement
from router.tuning.certifying.targets import Verdict
from router.tuning.certifying.tune_report import RuleAnswer, TuneReport
from router.tuning.certifying.tuning_run import Bench, Walked, rule_of
from router.values import Overrides


def check_served(
    served: ServedPolicy, bench: Bench, judged: Sequence[Judgement], expected: npt.NDArray[np.int16]
) -> None:
    """The policy to be written must decide every calibration prompt as it was certified; it is asked, not trusted."""
    check_certificate(served.rules, bench.probe.identity, served.ref.name)
    names = served.rules.file.names
    for number, (ask, judgement) in enumerate(zip(bench.calibration.asks, judged, strict=True)):
        chosen = choose(check_eligibility(served.rules, ask, Overrides()), judgement).chosen.name
        if chosen != names[expected[number]]:
            raise AssertionError(
                f"the served policy must decide as the certified one; for prompt "
                f"{bench.calibration.outcomes.ids[number]} it chooses {chosen}, certified was "
                f"{names[expected[number]]}. This is a defect of elle; please report it."
            )


def policy_file(
    bench: Bench,
    walked: Walked,
    verdicts: Mapping[str, Verdict],
    report: TuneReport,
    name: str,
    probe_place: str,
) -> PolicyFile:
    """The file to write, as it will be read back. Rules that are not certified have no certificate."""

    def tuned(key: str) -> tuple[Rule, CertificateRecord | None]:
        rule = rule_of(walked, verdicts[key])
        answer = report.profiles[key] if key else report.main
        return rule, _certificate(bench, rule, answer, report) if answer.certified else None

    rule, certificate = tuned("")
    profiles = {}
    for key in report.profiles:
        own, shown = tuned(key)
        profiles[key] = Profile(rule=own, certificate=shown)
    changes = {"name": name, "probe": probe_place, "rule": rule, "certificate": certificate, "profiles": profiles}
    changes["description"] = "; ".join(target.says for target in report.main.targets)
    draft = bench.served.rules.file.model_copy(update=changes)
    # As it will be read back, so that what is checked is what is written.
    return PolicyFile.model_validate(yaml.safe_load(policy_text(draft, report)))


def _certificate(bench: Bench, rule: Rule, answer: RuleAnswer, report: TuneReport) -> CertificateRecord:
    assert answer.figures is not None  # noqa: S101  (a certified rule has figures)
    certificate = CertificateRecord(
        confidence=report.confidence,
        targets=tuple(
            CertifiedTarget(
                kind=t.kind,
                limit=t.limit,
                estimate=t.estimate,
                bound_on_estimate=t.bound,
                method=t.method,
                delta=t.delta,
            )
            for t in answer.targets
        ),
        reference=report.reference,
        covers=report.covers,
        n_calibration=report.n_calibration,
        n_seen_left_out=report.n_seen_left_out,
        n_seen_kept=report.n_seen_kept,
        n_incomplete=report.n_incomplete,
        weak_share=answer.figures.weak_share,
        expected_cost_saving=answer.figures.expected_cost_saving,
        data_digest=report.data_digest,
        probe=bench.probe.identity,
        decides="",
        attempts=report.attempts,
        created=report.created,
        expires=report.expires,
    )
    rules = bench.served.rules
    rules = replace(rules, file=rules.file.model_copy(update={"rule": rule}))
    decides = digest_of(rules, with_prices=is_about_cost(certificate))
    return sealed(certificate.model_copy(update={"decides": decides}))


def policy_text(file: PolicyFile, report: TuneReport) -> str:
    """The policy as YAML, with a word on top about where it comes from."""
    status = (
        "Certified" if report.certified else "NOT certified"
    ) + f" by `elle tune` on {report.created.date()}; an edit of what decides voids the certificate."
    data = file.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return f"# {status}\n" + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
