"""Turn a LiteLLM `model_list` file into the skeleton of a policy file: candidates with models, keys, prices, limits.

The skeleton is valid and always asks the strongest candidate; it says itself how to go on from there. No secret of the
LiteLLM file gets into it: only names of environment variables do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from router.errors import ConfigError
from router.policies.candidates.params import Params
from router.policies.candidates.prices import litellm_model_info
from router.policies.credentials import check_base, check_holds_no_secret, check_key_variable, shown_base
from router.policies.file_model import NAME_PATTERN
from router.values import Capability
from router.yaml_file import read_yaml

_ENV = "os.environ/"
#: The keys of `litellm_params` that a candidate has a place for. Prices may stand there too.
_TAKEN = frozenset({"model", "api_base", "api_key", "timeout", "input_cost_per_token", "output_cost_per_token"})
_SUPPORTS = {
    "supports_vision": Capability.IMAGE,
    "supports_audio_input": Capability.AUDIO,
    "supports_pdf_input": Capability.FILE,
    "supports_video_input": Capability.VIDEO,
    "supports_function_calling": Capability.TOOLS,
    "supports_response_schema": Capability.JSON_SCHEMA,
}

_HEAD = """\
# Candidates of a LiteLLM model_list. Every request goes to {default} until a probe judges:
#   elle fit outcomes.jsonl --holdout 0.45 --out my-probe
#   elle tune my-probe outcomes.jsonl --candidates {file} --max-loss 0.02 --out tuned.yaml
"""


@dataclass
class _Import:
    """Collects the candidates read so far, and notes on what could not be taken over."""

    candidates: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def policy_from_litellm(path: Path, *, out_name: str = "policy.yaml") -> str:
    """Return the YAML text of a policy file, with comments, for the models in a LiteLLM configuration.

    Args:
        path: a LiteLLM configuration with a `model_list`; everything else in it is left aside.
        out_name: what the comments call the policy file.

    Raises ConfigError if the file cannot be read, holds no chat model, or holds a key where a name belongs.
    """
    found = _Import()
    deployments = _model_list(path)
    models: dict[str, set[str]] = {}
    for deployment in deployments:
        models.setdefault(deployment["model_name"], set()).add(deployment["litellm_params"]["model"])
    for deployment in deployments:
        _take(deployment, found, alone=len(models[deployment["model_name"]]) == 1)
    if not found.candidates:
        raise ConfigError(f"{path}: model_list must hold at least one chat model, got none that can be a candidate.")
    _sort_by_price(found)
    default = found.candidates[-1]["name"]
    policy = {
        "schema": "elle.policy/1",
        "name": "litellm",
        "candidates": found.candidates,
        "rule": {"kind": "fixed", "candidate": default},
        "safe_default": default,
    }
    try:
        check_holds_no_secret(policy | {"notes": found.notes})
    except ValueError as error:
        raise ConfigError(f"LiteLLM file {path}: {error}.") from None
    notes = "".join(f"# Note: {note}.\n" for note in found.notes)
    return _HEAD.format(default=default, file=out_name) + notes + yaml.safe_dump(policy, sort_keys=False)


def _model_list(path: Path) -> list[dict[str, Any]]:
    data = read_yaml(path, "LiteLLM file", most_bytes=1 << 20)
    listed = data.get("model_list") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        raise ConfigError(f"LiteLLM file {path} must hold a list `model_list`.")
    for index, one in enumerate(listed):
        params = one.get("litellm_params") if isinstance(one, dict) else None
        model = params.get("model") if isinstance(params, dict) else None
        if not isinstance(model, str) or not isinstance(one.get("model_name"), str):
            raise ConfigError(f"LiteLLM file {path}: model_list[{index}] must have `model_name` and a `model`.")
    return listed


def _take(deployment: Mapping[str, Any], found: _Import, *, alone: bool) -> None:
    group, params = deployment["model_name"], deployment["litellm_params"]
    info, model = deployment.get("model_info"), params["model"]
    info = info if isinstance(info, dict) else {}
    said = {**_model_info(info.get("base_model") or model), **info}
    if "*" in group + model or "auto_router/" in model:
        found.notes.append(f"{group} ({model}) is left out: it is no single model")
        return
    if said.get("mode", "chat") not in {"chat", "responses", "completion"}:
        found.notes.append(f"{group} ({model}) is left out: its mode is {said['mode']}")
        return
    own, kept = _own_params(params)
    if any(one["model"] == model and _effort(one.get("params", {})) == _effort(own) for one in found.candidates):
        found.notes.append(f"a further deployment of {model} is left out: a candidate has one")
        return
    name = _free_name(group if alone else model.rpartition("/")[2], found)
    candidate = {"name": name, "model": model}
    candidate |= _where(name, params, found.notes)
    candidate |= {"params": own} if own else {}
    candidate |= _limits({**said, **{key: params[key] for key in _TAKEN & params.keys()}}, model)
    found.candidates.append(candidate)
    if dropped := sorted(params.keys() - _TAKEN - kept):
        found.notes.append(f"{name}: {', '.join(dropped)} of its litellm_params have no place here")


def _own_params(params: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the parameters with which a deployment is asked, as a policy writes them, and their names."""
    found: dict[str, Any] = {}
    for name in Params.model_fields.keys() & params.keys():
        try:
            found |= Params.model_validate({name: params[name]}).model_dump(mode="json")
        except ValidationError:
            # It stays among what has no place, which a note names.
            continue
    return dict(sorted(found.items())), frozenset(found)


def _effort(params: Mapping[str, Any]) -> list[Any]:
    """Return what tells two deployments of a model apart; others share its load."""
    return [params.get(name) for name in ("reasoning_effort", "thinking", "verbosity")]


def _where(name: str, params: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    base, key = params.get("api_base"), params.get("api_key")
    if isinstance(base, str) and base.startswith(_ENV):
        variable = _variable(base) if _is_variable(_variable(base)) else "the environment variable"
        notes.append(f"{name}: write the URL of {variable} as its api_base")
    elif base is not None:
        found |= _base(name, base, notes)
    if isinstance(key, str) and key.startswith(_ENV) and _is_variable(_variable(key)):
        found["api_key_env"] = _variable(key)
    elif key is not None:
        notes.append(f"{name}: its key stands in the LiteLLM file; export it and name the variable in api_key_env")
    return found


def _base(name: str, base: Any, notes: list[str]) -> dict[str, Any]:
    """Return a candidate's `api_base` unless it holds a password or is not a URL."""
    try:
        check_base(str(base))
    except ValueError:
        notes.append(f"{name}: its api_base is left out, it must be a URL that begins with http:// or https://")
        return {}
    parts = urlsplit(str(base))
    if shown_base(str(base)) == base:
        return {"api_base": base}
    notes.append(f"{name}: user, password and query of its api_base are left out; write in what it needs of them")
    return {"api_base": parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()}


def _variable(reference: str) -> str:
    return reference.removeprefix(_ENV)


def _is_variable(name: str) -> bool:
    try:
        check_key_variable(name)
    except ValueError:
        return False
    return True


def _limits(said: Mapping[str, Any], model: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    input_usd, output_usd = (_number(said.get(f"{side}_cost_per_token"), 1e3) for side in ("input", "output"))
    if input_usd is not None and output_usd is not None:
        found["prices"] = {
            "input_usd_per_million_tokens": round(input_usd * 1e6, 9),
            "output_usd_per_million_tokens": round(output_usd * 1e6, 9),
        }
    if window := int(_number(said.get("max_input_tokens"), 1e9) or 0):
        found["context_window_tokens"] = window
    found["capabilities"] = ["text", *(able.value for key, able in _SUPPORTS.items() if said.get(key))]
    if timeout := _number(said.get("timeout"), 1e8):
        found["timeout_s"] = timeout
    return found


def _number(value: Any, most: float) -> float | None:
    """Return a number from 0 to `most`, which may be written as text, or None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= most else None


def _model_info(model: str) -> Mapping[str, Any]:
    try:
        return litellm_model_info(model) or {}
    except ConfigError:
        # LiteLLM is not installed, so only the file itself can say something about the model.
        return {}


def _free_name(wanted: str, found: _Import) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).lstrip("._-")[:100] or "model"
    assert re.match(NAME_PATTERN, name)  # noqa: S101
    taken = {one["name"] for one in found.candidates}
    return next(one for one in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if one not in taken)


def _sort_by_price(found: _Import) -> None:
    """Sort the candidates by price, cheapest first, or note that some prices are unknown.

    The price of a candidate is the sum of its two prices, as if output were as long as input.
    """
    if all("prices" in one for one in found.candidates):
        found.candidates.sort(key=lambda one: sum(one["prices"].values()))
    else:
        found.notes.append("not all prices are known: put the candidates in the order of their tiers, cheapest first")
