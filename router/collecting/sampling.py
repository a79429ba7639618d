"""Choose which prompts of a log are asked: a uniform random draw by default, or those whose labels teach most."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from probes.embeddings.selection import next_to_label
from probes.encoders.exported import pinned_here
from probes.encoders.spec import EncoderSpec, parse_spec
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.collecting.prompts import PromptLog
from router.collecting.values import Drawn, ModelAnswer, Sample
from router.policies.loading import load_policy
from router.tuning.outcomes.feature_cache import FeatureCache, Progress

#: The informative prompts are chosen from this many that are drawn at random.
POOL = 20_000


@dataclass(frozen=True, slots=True)
class ChosenPrompt:
    """A prompt that was chosen, and the answers to it that are in the log, by the name of the model."""

    sample: Sample
    logged: Mapping[str, ModelAnswer]


@dataclass(frozen=True)
class Selection:
    """How prompts are chosen.

    Attributes:
        n: how many; None takes all.
        how: `random`, or `informative`: by leverage, and by the gain that the probe expects if there is one.
        seed: of the draw.
        policy: the policy file whose probe says where the models are expected to differ, and whose encoder is used;
            without a policy or a probe in it only leverage counts, by the default encoder.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    n: int | None = None
    how: Drawn = "random"
    seed: int = 0
    policy: Path | None = None
    encoder_dir: Path | None = None


def choose_prompts(
    log: PromptLog, selection: Selection, on_progress: Progress | None = None
) -> tuple[ChosenPrompt, ...]:
    """Return the chosen prompts in the order of the draw, each with the note how it was drawn.

    The order of a random draw depends only on the seed and the prompts, so the first k of n are the draw of k. Where
    the log has weights, each draw takes a prompt with a probability in proportion to its weight, and a prompt may be
    drawn more than once: every draw is then a draw of the traffic that the weights describe.

    Raises DataError for n below 1.
    """
    n = len(log.samples) if selection.n is None else selection.n
    if n < 1:
        raise DataError(f"--n must be at least 1, got {n}.")
    if selection.how == "informative":
        return _informative(log, min(n, len(log.samples)), selection, on_progress)
    if len({sample.weight for sample in log.samples}) > 1:
        return _weighted(log, n, selection.seed)
    return tuple(ChosenPrompt(log.samples[row], log.answers[row]) for row in _order(log.samples, selection.seed)[:n])


def _order(samples: Sequence[Sample], seed: int) -> list[int]:
    """Return all rows in random order; rows that are added to a log do not change the order of the others."""
    key = f"collect-{seed}".encode()
    keys = [hashlib.blake2b(sample.prompt_id.encode(), digest_size=16, key=key).digest() for sample in samples]
    return sorted(range(len(samples)), key=keys.__getitem__)


def _weighted(log: PromptLog, n: int, seed: int) -> tuple[ChosenPrompt, ...]:
    weights = np.array([sample.weight for sample in log.samples])
    rows = np.random.default_rng(seed).choice(len(weights), size=n, p=weights / math.fsum(weights))
    met: Counter[int] = Counter()
    drawn = []
    for row in rows.tolist():
        met[row] += 1
        again = "" if met[row] == 1 else f"#{met[row]}"
        sample = log.samples[row]
        sample = replace(sample, prompt_id=f"{sample.prompt_id}{again}", weight=1.0)
        drawn.append(ChosenPrompt(sample, log.answers[row]))
    return tuple(drawn)


def _informative(
    log: PromptLog, n: int, selection: Selection, on_progress: Progress | None
) -> tuple[ChosenPrompt, ...]:
    pool = _order(log.samples, selection.seed)[: max(POOL, n)]
    served = None if selection.policy is None else load_policy(selection.policy)
    probe = None if served is None else served.probe
    features = FeatureCache().features(
        _spec(probe, selection), [log.texts[row] for row in pool], encoder_dir=selection.encoder_dir,
        on_progress=on_progress,
    )  # fmt: skip
    # A label is worth most where the models are expected to differ.
    gain = None if probe is None else np.ptp(probe.predict(features).risk, axis=1)
    chosen = next_to_label(features, n, gain=gain)
    rows = [pool[int(at)] for at in chosen]
    return tuple(ChosenPrompt(replace(log.samples[row], drawn="informative"), log.answers[row]) for row in rows)


def _spec(probe: DifficultyProbe | None, selection: Selection) -> EncoderSpec:
    if probe is not None and probe.encoder is not None:
        return EncoderSpec.from_dict(probe.encoder)
    return pinned_here(parse_spec("minilm-l6"), selection.encoder_dir)
