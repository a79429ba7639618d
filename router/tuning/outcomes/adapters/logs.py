"""Records of real traffic: OpenAI batch files, LiteLLM spend logs, Langfuse exports. What has no score is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.tuning.outcomes.adapters.files import Answer, Record, decoded, field, number, read_records

NO_SCORE = "without a score"
NO_PROMPT = "without a prompt"
FAILED = "failed calls"


def read_openai_batch(paths: Sequence[Path], scores: Mapping[str, float]) -> tuple[list[Answer], Counter[str]]:
    """OpenAI batch JSONL: request files (`custom_id`, `body.messages`, `body.model`) and output files together.

    Model: as requested; where one custom_id was requested of several models, the one whose name begins the
    `response.body.model` of the output. Tokens from `response.body.usage`. A batch holds no score: `--scores` gives it
    by custom_id, or by `MODEL/custom_id` where several models share it.
    """
    requests: dict[str, list[Record]] = defaultdict(list)
    outputs: list[tuple[str, Record]] = []
    for path in paths:
        for where, record in read_records(path):
            if "response" in record:
                outputs.append((where, record))
            elif isinstance(record.get("body"), dict) and "custom_id" in record:
                requests[str(record["custom_id"])].append(record["body"])
            else:
                raise DataError(f"{where} must be a batch request or output; got {', '.join(record)}.")
    answers: list[Answer] = []
    skipped: Counter[str] = Counter()
    for where, output in outputs:
        key, response = str(output.get("custom_id")), output["response"] or {}
        body = response.get("body") or {}
        if output.get("error") or response.get("status_code") != 200:
            skipped[FAILED] += 1
            continue
        request = _requested(where, requests.get(key, []), str(body.get("model", "")))
        model = str(request.get("model", ""))
        score = scores.get(f"{model}/{key}", scores.get(key))
        messages = request.get("messages")
        if score is None or not messages:
            skipped[NO_SCORE if messages else NO_PROMPT] += 1
            continue
        usage = body.get("usage") or {}
        answers.append(
            Answer(
                model,
                score,
                messages=messages,
                prompt_id=key,
                input_tokens=number(where, "prompt_tokens", usage.get("prompt_tokens")),
                output_tokens=number(where, "completion_tokens", usage.get("completion_tokens")),
            )
        )
    return answers, skipped


def _requested(where: str, candidates: Sequence[Record], answered_by: str) -> Record:
    if len(candidates) > 1:
        # `gpt-4o` is answered by `gpt-4o-2024-08-06`, which is no `gpt-4o-mini`: the longest name that fits.
        candidates = [c for c in candidates if answered_by.startswith(str(c.get("model")))]
        candidates = sorted(candidates, key=lambda c: len(str(c.get("model"))))[-1:]
    if not candidates:
        raise DataError(f"{where} answers no request that was given; name the request files of the batch too.")
    return candidates[0]


def read_litellm_spend_logs(paths: Sequence[Path], scores: Mapping[str, float]) -> tuple[list[Answer], Counter[str]]:
    """LiteLLM's spend logs (`LiteLLM_SpendLogs`, or the JSON of `/spend/logs`).

    Read: `messages`, else those in `proxy_server_request` (empty unless the proxy stores prompts); `model_group`, else
    `model`; `spend` in USD; `prompt_tokens`, `completion_tokens`; the first of `request_tags` as group. Rows whose
    `status` is failure are left out. Score: from `--scores` by `request_id`; else `score` in `metadata` or in its
    `requester_metadata`.
    """
    answers: list[Answer] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        for where, record in read_records(path):
            if "request_id" not in record:
                raise DataError(f"{where} must have request_id; got {', '.join(record)}.")
            metadata = _mapping(record.get("metadata"))
            score = scores.get(str(record["request_id"]))
            if score is None:
                own = field(metadata, "score") or _mapping(metadata.get("requester_metadata")).get("score")
                score = number(where, "score", own)
            messages = decoded(record.get("messages")) or _mapping(record.get("proxy_server_request")).get("messages")
            if why := _unusable(str(record.get("status") or ""), messages, score):
                skipped[why] += 1
                continue
            tags = decoded(record.get("request_tags")) or [""]
            answers.append(
                Answer(
                    str(record.get("model_group") or record.get("model") or ""),
                    0.0 if score is None else score,
                    messages=messages,
                    group=str(tags[0]),
                    cost_usd=number(where, "spend", record.get("spend")),
                    input_tokens=number(where, "prompt_tokens", record.get("prompt_tokens")),
                    output_tokens=number(where, "completion_tokens", record.get("completion_tokens")),
                )
            )
    return answers, skipped


def _unusable(status: str, messages: Any, score: float | None) -> str | None:
    if status == "failure":
        return FAILED
    if not isinstance(messages, list) or not messages:
        return NO_PROMPT
    return NO_SCORE if score is None else None


def read_langfuse(paths: Sequence[Path], score_name: str | None) -> tuple[list[Answer], Counter[str]]:
    """Langfuse exports: observations and scores (blob storage or table export), or traces that hold both.

    Observations of `type` GENERATION; names in snake_case or camelCase. Read: `input` (a chat, an object with
    `messages`, or text), `provided_model_name` or `model`, `total_cost`, `usage_details.input` and `.output`,
    `trace_name` as group. Score: `value` (numeric or boolean) of the scores called `--score-name`, or of the only name
    there is: those on the observation, else those on its trace where it is the trace's only generation; their mean.
    """
    observations: list[tuple[str, Record]] = []
    scores: list[tuple[str, Record]] = []
    for path in paths:
        for where, record in read_records(path):
            inside = record.get("observations")
            if isinstance(inside, list):
                observations += [(where, {"traceName": record.get("name"), **one}) for one in inside]
                scores += [(where, {"traceId": record.get("id"), **one}) for one in record.get("scores") or []]
            elif "value" in record or "string_value" in record or "stringValue" in record:
                scores.append((where, record))
            elif "input" in record or "type" in record:
                observations.append((where, record))
            else:
                raise DataError(f"{where} must be an observation, a score or a trace; got {', '.join(record)}.")
    values = _langfuse_scores(scores, score_name)
    generations = [(w, o) for w, o in observations if str(o.get("type") or "GENERATION") == "GENERATION"]
    per_trace = Counter(field(o, "trace_id", "traceId") for _, o in generations)
    answers: list[Answer] = []
    skipped: Counter[str] = Counter({"not generations": len(observations) - len(generations)})
    for where, one in generations:
        trace = field(one, "trace_id", "traceId")
        found = values.get(str(one.get("id"))) or (values.get(f"trace {trace}") if per_trace[trace] == 1 else None)
        asked = _langfuse_prompt(one.get("input"))
        if found is None or asked is None:
            skipped[NO_PROMPT if found else NO_SCORE] += 1
            continue
        answers.append(_langfuse_answer(where, one, asked, sum(found) / len(found)))
    return answers, +skipped


def _langfuse_answer(where: str, one: Record, asked: str | list[Any], score: float) -> Answer:
    usage = _mapping(field(one, "usage_details", "usageDetails", "usage"))
    cost = field(one, "total_cost", "totalCost", "calculatedTotalCost")
    return Answer(
        str(field(one, "provided_model_name", "providedModelName", "model") or ""),
        score,
        prompt=asked if isinstance(asked, str) else None,
        messages=asked if isinstance(asked, list) else None,
        group=str(field(one, "trace_name", "traceName") or ""),
        cost_usd=number(where, "total_cost", cost),
        input_tokens=number(where, "usage input", usage.get("input")),
        output_tokens=number(where, "usage output", usage.get("output")),
    )


def _langfuse_scores(records: Sequence[tuple[str, Record]], name: str | None) -> dict[str, list[float]]:
    """Values by observation id, or by `trace ID` where the score is on the trace."""
    names = sorted({str(record.get("name")) for _, record in records})
    if name is None and len(names) > 1:
        raise DataError(f"the export holds several scores ({', '.join(names)}); choose one with --score-name.")
    if name is not None and name not in names:
        raise DataError(f"--score-name must be one of {', '.join(names) or '(no scores found)'}; got {name!r}.")
    found: dict[str, list[float]] = defaultdict(list)
    for where, record in records:
        if name is None or record.get("name") == name:
            observation = field(record, "observation_id", "observationId")
            key = str(observation) if observation else f"trace {field(record, 'trace_id', 'traceId')}"
            value = number(where, "value (numeric or boolean)", field(record, "value", "string_value", "stringValue"))
            if value is not None:
                found[key].append(value)
    return found


def _langfuse_prompt(value: Any) -> str | list[Any] | None:
    value = decoded(value)
    if isinstance(value, dict):
        value = value.get("messages")
    return value if isinstance(value, str | list) and value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    value = decoded(value)
    return value if isinstance(value, dict) else {}
