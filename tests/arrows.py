"""Say which room of each package may import which; tests/test_architecture.py holds the sources to it."""

from __future__ import annotations

from collections.abc import Mapping

#: What every room of a package may import: small files at the root of the package that know nothing of the rooms.
COMMON = {
    "probes": {"_checks", "atomic_write", "bounded", "digests", "errors", "grouping", "progress", "telemetry"},
    "router": {
        "attempts",
        "decision",
        "errors",
        "loop_thread",
        "money",
        "plain_json",
        "quoting",
        "times",
        "values",
        "watched_files",
        "written_body",
        "yaml_file",
    },
}

#: For each room the further rooms, and files at the root, that it may import.
ARROWS: Mapping[str, Mapping[str, set[str]]] = {
    "probes": {
        "artifacts": {"calibration", "kinds", "probe", "regression", "tasks"},
        "asides": set(),
        "bounded": set(),
        "calibration": {"regression"},
        "certificates": set(),
        "embeddings": {"probe", "regression", "shards"},
        "encoders": {"asides"},
        "kinds": {"regression"},
        "losses": {"embeddings", "measures", "probe", "shards"},
        "measures": set(),
        "probe": {"calibration", "kinds", "regression", "scoring", "tasks"},
        "regression": set(),
        "scoring": {"kinds", "regression"},
        "shards": set(),
        "tasks": set(),
    },
    "router": {
        "admin": {"asking", "deciding", "explaining", "identity", "observing"},
        "answering": {"asking", "intake", "observing", "policies"},
        "asking": set(),
        "client": {"feedback", "wire", "pb"},
        "collecting": {"answering", "asking", "policies", "serving", "tuning.outcomes"},
        "deciding": {"asking", "exploring", "feedback", "identity", "intake", "observing", "policies", "sharing"},
        "drift": {"observing", "policies"},
        "comparing": {"asking", "exploring", "feedback", "ledger", "policies"},
        "explaining": {"policies"},
        "exploring": {"observing", "policies"},
        "feedback": {"identity", "ledger", "policies"},
        "gateways": {"answering", "asking", "client", "deciding", "feedback", "identity", "intake", "observing"}
        | {"policies", "wire"},
        "identity": {"asking", "observing", "sharing"},
        "intake": set(),
        "ledger": {"observing"},
        "observing": {"policies"},
        "policies": {"asking"},
        "rollout": {"asking", "deciding", "feedback", "ledger", "observing", "policies"},
        "serving": {"admin", "answering", "deciding", "drift", "exploring", "feedback", "identity", "intake", "ledger"}
        | {"observing", "policies", "rollout", "sharing", "versions", "wire", "pb"},
        "sharing": {"ledger"},
        "tuning.certifying": {"asking", "policies", "tuning.fitting", "tuning.outcomes"},
        "tuning.fitting": {"asking", "policies", "tuning.outcomes"},
        "tuning.judging": {"asking", "policies", "tuning.fitting", "tuning.outcomes"},
        "tuning.outcomes": {"asking", "policies"},
        "tuning.previewing": {"asking", "deciding", "explaining", "policies", "tuning.outcomes", "tuning.reporting"},
        "tuning.reporting": {"asking", "policies", "tuning.fitting", "tuning.judging", "tuning.outcomes"},
        "versions": {"ledger", "policies"},
        "wire": {"answering", "asking", "deciding", "feedback", "identity", "intake", "pb"},
    },
}

#: The command line imports every room, and old import paths (`probes.artifact`) hand on to the new ones.
FREE = {"probes": {"artifact"}, "router": {"cli"}}
