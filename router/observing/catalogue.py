"""List every metric of the service: its name, kind, labels and meaning. No label holds text of a caller."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class MetricKind(enum.Enum):
    """The kinds of metrics, which say how the values of several processes become one."""

    #: It only grows; the values of all processes are added.
    COUNTER = "counter"
    #: Counts of values by size; those of all processes are added.
    HISTOGRAM = "histogram"
    #: A value now, such as the length of a queue; the values of all processes are added.
    SUM = "gauge, added over processes"
    #: A value now that all processes have alike, such as an expiry; the largest counts.
    SAME = "gauge, the same in all processes"


@dataclass(frozen=True, slots=True)
class Metric:
    """Describes one metric: its name, its kind, its meaning and its labels.

    Attributes:
        name: its name for Prometheus, without the ending `_total` of a counter.
        kind: its kind.
        text: what it says.
        labels: the names of its labels. If the first two are `policy` and `version`, its series go when that version of
            the policy has not been used for long.
        buckets: the upper bounds of a histogram's buckets, without infinity.
    """

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series_names(self) -> tuple[str, ...]:
        """Return the names of its series, as queries write them."""
        endings = {MetricKind.COUNTER: ("_total",), MetricKind.HISTOGRAM: ("_bucket", "_count", "_sum")}
        return tuple(self.name + ending for ending in endings.get(self.kind, ("",)))


_POLICY = ("policy", "version")
_CANDIDATE = (*_POLICY, "candidate")

#: Seconds of one step of a decision.
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

#: Seconds of an answer.
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)

_COUNTER, _HISTOGRAM = MetricKind.COUNTER, MetricKind.HISTOGRAM
_SUM, _SAME = MetricKind.SUM, MetricKind.SAME

DECISIONS = Metric("elle_decisions", _COUNTER, "Decisions by their reason.", (*_CANDIDATE, "reason"))
REFUSED = Metric("elle_refused", _COUNTER, "Requests that were refused before they were decided.", ("reason",))
TURNED_AWAY = Metric(
    "elle_turned_away",
    _COUNTER,
    "Calls that were refused because of who called, by door: without a valid token, without the scope, over a limit.",
    ("door", "reason"),
)
SESSION_DECISIONS = Metric(
    "elle_session_decisions",
    _COUNTER,
    "Decisions by what they mean for a session: none, new, kept with its candidate, or moved to another one.",
    (*_POLICY, "session"),
)
DECISION_SECONDS = Metric(
    "elle_decision_seconds",
    _HISTOGRAM,
    "Time of a decision by stage: queue, encode, probe, policy, and total, which includes the others.",
    ("stage",),
    _SHORT,
)
EXPECTED_COST = Metric(
    "elle_expected_cost_usd",
    _COUNTER,
    "Expected cost of the chosen candidates at the policy's prices and expected tokens.",
    _CANDIDATE,
)
ALWAYS_STRONG_COST = Metric(
    "elle_always_strong_cost_usd",
    _COUNTER,
    "Expected cost of the same decisions if the last tier of the policy answered all of them.",
    _POLICY,
)
ALWAYS_WEAK_COST = Metric(
    "elle_always_weak_cost_usd",
    _COUNTER,
    "Expected cost of the same decisions if the first tier of the policy answered all of them.",
    _POLICY,
)
COLD_CACHE_COST = Metric(
    "elle_cold_cache_cost_usd",
    _COUNTER,
    "The part of the expected cost that is paid because sessions moved to a candidate with a cold prompt cache.",
    _POLICY,
)
UNPRICED = Metric(
    "elle_unpriced_decisions", _COUNTER, "Decisions that no cost includes, because a price is unknown.", _POLICY
)
ANSWERS = Metric(
    "elle_answers",
    _COUNTER,
    "Answers by who gave them and how they ended; without a candidate if none answered.",
    (*_CANDIDATE, "outcome"),
)
FELL_BACK = Metric(
    "elle_fell_back",
    _COUNTER,
    "Answers that another candidate gave than the chosen one, by the one chosen.",
    _CANDIDATE,
)
ATTEMPTS = Metric("elle_attempts", _COUNTER, "Attempts to get an answer of a candidate.", (*_CANDIDATE, "outcome"))
FIRST_CONTENT_SECONDS = Metric(
    "elle_first_content_seconds",
    _HISTOGRAM,
    "Time from the decision to the first content of a streamed answer.",
    _CANDIDATE,
    _LONG,
)
ANSWER_SECONDS = Metric(
    "elle_answer_seconds", _HISTOGRAM, "Time from the decision to the end of an answer.", _CANDIDATE, _LONG
)
INPUT_TOKENS = Metric("elle_input_tokens", _COUNTER, "Input tokens as providers counted them.", _CANDIDATE)
OUTPUT_TOKENS = Metric("elle_output_tokens", _COUNTER, "Output tokens as providers counted them.", _CANDIDATE)
ANSWER_COST = Metric(
    "elle_answer_cost_usd", _COUNTER, "Cost of answers at the policy's prices and the counted tokens.", _CANDIDATE
)
CACHE_HITS = Metric("elle_decision_cache_hits", _COUNTER, "Prompts that had been judged before.")
CACHE_MISSES = Metric("elle_decision_cache_misses", _COUNTER, "Prompts of known callers that were judged anew.")

CACHE_ENTRIES = Metric("elle_decision_cache_entries", _SUM, "Judgements that are kept.")
ENCODER_PENDING = Metric("elle_encoder_pending", _SUM, "Prompts that wait for the encoder or are in it.")
SESSIONS = Metric("elle_sessions", _SAME, "Sessions that all workers together remember with their last candidate.")
WORKERS = Metric("elle_workers", _SUM, "Processes that serve.")
WORKER_RESTARTS = Metric(
    "elle_worker_restarts", _COUNTER, "Workers that were replaced, by how they ended: died or silent.", ("ended",)
)
POLICY_INFO = Metric("elle_policy_info", _SAME, "The policies that are served; always 1.", (*_POLICY, "probe"))
RELOADS = Metric("elle_reloads", _COUNTER, "Reloads of the policies: replaced, unchanged or failed.", ("result",))
POLICY_LOADED = Metric(
    "elle_policy_loaded_timestamp_seconds",
    _SAME,
    "When the policies that decide were loaded, by the newest process.",
)
CERTIFICATE_EXPIRES = Metric(
    "elle_certificate_expires_timestamp_seconds", _SAME, "When the certificate of a policy expires.", _POLICY
)
DRIFT_BLOCKS = Metric(
    "elle_drift_blocks", _SUM, "Complete blocks of requests that were compared or joined the baseline.", ("probe",)
)
DRIFT_DISTANCE = Metric(
    "elle_drift_distance",
    _SAME,
    "Total variation distance, 0 to 1, of the last block of requests from the baseline; the largest of all processes.",
    ("probe", "signal"),
)
DRIFT_ALARM = Metric(
    "elle_drift_alarm", _SAME, "1 if the last block of requests differs from the baseline.", ("probe", "signal")
)
CALLER_DECISIONS = Metric(
    "elle_caller_decisions",
    _COUNTER,
    "Decisions by the name of the token; tier `strong` is above the cheapest candidate that could answer.",
    ("caller", "tier"),
)
CALLER_COST = Metric("elle_caller_cost_usd", _COUNTER, "What answers cost, by the name of the token.", ("caller",))
TLS_EXPIRES = Metric("elle_tls_expires_timestamp_seconds", _SAME, "When the TLS certificate of the service expires.")
WATCHED_FAILURES = Metric(
    "elle_watched_failures",
    _COUNTER,
    "Attempts to read tokens, keys, certificates of TLS or a canary anew that failed; the last good state stays.",
    ("what",),
)
WATCHED_FAILING = Metric(
    "elle_watched_failing",
    _SAME,
    "1 while tokens, keys, certificates of TLS, a canary or the policies cannot be used as they are now.",
    ("what",),
)
LEDGER_ROWS = Metric(
    "elle_ledger_rows",
    _COUNTER,
    "Rows of the ledger by what became of them: written to the database, spooled to the disk, replayed from there, or "
    "dropped, which means lost. A replayed row counts as written too.",
    ("fate",),
)
LEDGER_WAITING = Metric("elle_ledger_waiting_rows", _SUM, "Rows of the ledger that wait in memory.")
LEDGER_SPOOL = Metric("elle_ledger_spool_bytes", _SAME, "Bytes of the ledger's spool, which all processes share.")
LEDGER_LAG = Metric("elle_ledger_lag_seconds", _SAME, "Age of the oldest row that the database lacks; 0 if it has all.")
LEDGER_DOWN = Metric("elle_ledger_down", _SAME, "1 if the ledger's database failed when it was last tried.")
SHADOW_DECISIONS = Metric(
    "elle_shadow_decisions",
    _COUNTER,
    "Requests that a shadow policy decided too, by the candidate that was chosen and the one of the shadow.",
    ("shadow", "candidate", "shadow_candidate"),
)
SHADOW_UNCOMPARED = Metric(
    "elle_shadow_uncompared", _COUNTER, "Requests that a shadow policy refused or left out.", ("shadow", "why")
)
SHADOW_COST = Metric(
    "elle_shadow_expected_cost_usd",
    _COUNTER,
    "Expected cost of the compared requests, of the candidates that were chosen and of those of the shadow.",
    ("shadow", "of"),
)
STATE_FAILURES = Metric(
    "elle_state_failures",
    _COUNTER,
    "Exchanges of sessions and usage with other processes that failed; each process then goes on with what it knows.",
)
STATE_UNSAID = Metric(
    "elle_state_unsaid_sessions", _COUNTER, "Sessions that others were never told of, because too many waited."
)
STATE_AGE = Metric(
    "elle_state_age_seconds", _SAME, "Seconds since the last exchange worked; the largest of all processes."
)
CANARY_SHARE = Metric(
    "elle_canary_share",
    _SAME,
    "Share of the requests to the base that the canary decides, 0 to 1, with its state.",
    ("tried", "base", "status"),
)
CANARY_LOSS = Metric(
    "elle_canary_loss",
    _SAME,
    "Mean loss of the canary, -1 to 1: the bounds between which it lies, and the limit that is acceptable.",
    ("tried", "bound"),
)
CANARY_LABELS = Metric("elle_canary_labels", _SAME, "Labels of the canary so far.", ("tried",))
CANARY_REQUESTS = Metric("elle_canary_requests", _SAME, "Answers of the canary whose end is known.", ("tried",))
BUILD_INFO = Metric("elle_build_info", _SAME, "What runs; always 1.", ("version", "python"))

#: Every metric by its name.
CATALOGUE = {
    metric.name: metric
    for metric in (
        *(DECISIONS, REFUSED, TURNED_AWAY, SESSION_DECISIONS, DECISION_SECONDS),
        *(EXPECTED_COST, ALWAYS_STRONG_COST, ALWAYS_WEAK_COST, COLD_CACHE_COST, UNPRICED),
        *(ANSWERS, FELL_BACK, ATTEMPTS, FIRST_CONTENT_SECONDS, ANSWER_SECONDS),
        *(INPUT_TOKENS, OUTPUT_TOKENS, ANSWER_COST),
        *(CACHE_HITS, CACHE_MISSES, CACHE_ENTRIES, ENCODER_PENDING, SESSIONS),
        *(CALLER_DECISIONS, CALLER_COST, TLS_EXPIRES, WATCHED_FAILURES, WATCHED_FAILING),
        *(RELOADS, POLICY_LOADED),
        *(DRIFT_BLOCKS, DRIFT_DISTANCE, DRIFT_ALARM),
        *(LEDGER_ROWS, LEDGER_WAITING, LEDGER_SPOOL, LEDGER_LAG, LEDGER_DOWN),
        *(CANARY_SHARE, CANARY_LOSS, CANARY_LABELS, CANARY_REQUESTS),
        *(SHADOW_DECISIONS, SHADOW_UNCOMPARED, SHADOW_COST),
        *(STATE_FAILURES, STATE_UNSAID, STATE_AGE),
        *(WORKERS, WORKER_RESTARTS, POLICY_INFO, CERTIFICATE_EXPIRES, BUILD_INFO),
    )
}
