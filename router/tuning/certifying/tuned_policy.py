"""Build the policy file that serves a certified rule, and check it on every calibration prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

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
from router.tuning.certifying.preparation import TuningInputs
from router.tuning.certifying.results.tuning_result import RuleResult, TuningResult
from router.values import Overrides


def check_served(
    served: ServedPolicy, inputs: TuningInputs, judged: Sequence[Judgement | None], expected: npt.NDArray[np.int16]
) -> None:
    """Check that the policy to be written decides every calibration prompt as the certified one did.

    judged: the judgement of each calibration prompt. expected: (n,) the candidates that the certified policy chooses.
    Raises AssertionError if a decision differs, and ConfigError if the certificate is not of this policy.
    """
    check_certificate(served.rules, inputs.judged_by, served.ref.name)
    names = served.rules.file.names
    for number, (ask, judgement) in enumerate(zip(inputs.calibration.asks, judged, strict=True)):
        chosen = choose(check_eligibility(served.rules, ask, Overrides()), judgement).chosen.name
        if chosen != names[expected[number]]:
            raise AssertionError(
                f"the served policy must decide as the certified one; for prompt "
                f"{inputs.calibration.outcomes.ids[number]} it chooses {chosen}, certified was "
                f"{names[expected[number]]}. This is a defect of elle; please report it."
            )


def build_policy_file(
    inputs: TuningInputs, rules: Mapping[str, Rule], result: TuningResult, *, name: str, probe_place: str | None
) -> PolicyFile:
    """Return the policy file to write, as it will be read back; a rule that is not certified gets no certificate.

    rules: by profile name, "" for the policy's own rule. name: of the policy. probe_place: the path to its probe; None
        without one.
    """

    def with_certificate(key: str) -> dict[str, Any]:
        found = result.profiles[key] if key else result.main
        return {"rule": rules[key], "certificate": _certificate(inputs, rules[key], found, result)}

    changes = {"name": name, "probe": probe_place, **with_certificate("")}
    changes["profiles"] = {key: Profile(**with_certificate(key)) for key in result.profiles}
    changes["description"] = "; ".join(target.says for target in result.main.targets)
    draft = inputs.served.rules.file.model_copy(update=changes)
    # Through its text, so that what is checked is what is written.
    return PolicyFile.model_validate(yaml.safe_load(policy_text(draft, result)))


def _certificate(
    inputs: TuningInputs, rule: Rule, certified: RuleResult, result: TuningResult
) -> CertificateRecord | None:
    """Return the certificate of one rule, or None if the rule is not certified."""
    if not certified.certified or certified.rule is None:
        return None
    certificate = CertificateRecord(
        confidence=result.confidence,
        targets=tuple(
            CertifiedTarget(
                kind=t.kind,
                limit=t.limit,
                estimate=t.estimate,
                bound_on_estimate=t.bound,
                method=t.method,
                delta=t.delta,
            )
            for t in certified.targets
        ),
        reference=result.reference,
        covers=result.covers,
        about=result.about,
        n_calibration=result.n_calibration,
        n_human=result.n_human,
        n_seen_left_out=result.n_seen_left_out,
        n_seen_kept=result.n_seen_kept,
        n_incomplete=result.n_incomplete,
        weak_share=certified.rule.weak_share,
        expected_cost_saving=certified.rule.expected_cost_saving,
        data_digest=result.data_digest,
        probe=inputs.judged_by,
        decides="",
        attempts=result.attempts,
        created=result.created,
        expires=result.expires,
    )
    rules = inputs.served.rules
    rules = replace(rules, file=rules.file.model_copy(update={"rule": rule}))
    decides = digest_of(rules, with_prices=is_about_cost(certificate))
    return sealed(certificate.model_copy(update={"decides": decides}))


def policy_text(file: PolicyFile, result: TuningResult) -> str:
    """Return the policy as YAML, under a comment that says where it comes from."""
    status = "Certified" if result.certified else "NOT certified"
    data = file.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return (
        f"# {status} by `elle tune` on {result.created.date()}; an edit of what decides voids the certificate.\n"
        + yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    )


class _Dumper(yaml.SafeDumper):
    """Writes lists of numbers on one line, such as the knots of a map; everything else as usual."""

    def represent_numbers(self, values: list[Any]) -> yaml.Node:
        """Return the node of a list."""
        flow = all(isinstance(value, int | float) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


_Dumper.add_representer(list, _Dumper.represent_numbers)
