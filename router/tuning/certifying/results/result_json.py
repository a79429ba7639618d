"""Convert the result of `elle tune` to plain JSON values, for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from router.tuning.certifying.results.tuning_result import RuleResult, TunedRule, TuningResult


def result_to_dict(result: TuningResult) -> dict[str, Any]:
    """Return the result as plain JSON values; the figures of the policy's own rule are at the top level."""
    parts = ("main", "profiles", "groups", "created", "expires")
    rest = {key: value for key, value in asdict(result).items() if key not in parts}
    return {
        **_rule_to_dict(result.main),
        "certified": result.certified,
        "profiles": {name: _rule_to_dict(profile) for name, profile in result.profiles.items()},
        "groups": {name: asdict(group) for name, group in result.groups.items()},
        **rest,
        "created": result.created.isoformat(),
        "expires": result.expires.isoformat(),
    }


def _rule_to_dict(result: RuleResult) -> dict[str, Any]:
    rule = result.rule
    figures = asdict(rule) if rule else dict.fromkeys(TunedRule.__dataclass_fields__)
    if rule is None and len(result.targets) == 1 and result.targets[0].kind == "max_loss":
        # These are of the safest policy of the path: no other one can show a smaller loss.
        figures |= {"loss_estimate": result.targets[0].estimate, "loss_upper_bound": result.targets[0].bound}
    return {
        "certified": result.certified,
        "threshold": rule.threshold if rule else None,
        **figures,
        "targets": [asdict(target) for target in result.targets],
        "more_labels": result.more_labels,
    }
