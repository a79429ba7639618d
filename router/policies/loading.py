"""Load policies (`ServedPolicy`) from their files with probe and prices, and check that all parts fit together."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from probes.artifacts import store as artifact
from probes.encoders.spec import Encoder, EncoderSpec, FloatArray
from probes.errors import EncoderError, EncoderMismatchError, ProbesError
from probes.probe import DifficultyProbe, ProbePrediction
from router.asking.harness_marks import MarkIndex, marks_with, shipped_marks
from router.decision import ArtifactRef, NearKind, NearKinds, ScoreUsed
from router.errors import ConfigError
from router.policies.candidates.prices import resolve_prices
from router.policies.certificate import check_certificate, is_expired
from router.policies.certificate_record import CertificateRecord
from router.policies.credentials import shown_base
from router.policies.policy_file import PolicyFile, read_policy_file
from router.policies.rules import Judgement, Rules

log = logging.getLogger(__name__)

DEFAULTS = Path(__file__).parents[1] / "defaults"
DEFAULT_POLICY = DEFAULTS / "policy.yaml"
#: An example with exact figures: Mixtral-8x7B and GPT-4 Turbo, from the public outcomes of RouteLLM.
EXAMPLE_POLICY = DEFAULTS / "mixtral-gpt4.yaml"

_BUILTIN = "builtin:"

_OTHER_ROUNDING = (
    "policy %s: its probe was fitted in %s, and this machine computes %s; a decision right at a threshold may differ"
)


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that can decide, because its probe and its prices are loaded.

    Attributes:
        rules: the policy file with its prices, as `router.policies.choice` needs it.
        ref: name, version and digest of the policy.
        probe: the probe; None only under a fixed rule, and if the policy judges by a score of the caller.
        probe_ref: name, version and digest of the probe, or of that score with its maps.
        encoder_spec: the encoder that the probe was fitted on.
        columns: for each candidate the index of its column in the probe, (n_candidates,).
        marks: the marks by which harnesses are known, those of the policy included.
    """

    rules: Rules
    ref: ArtifactRef
    probe: DifficultyProbe | None = None
    probe_ref: ArtifactRef | None = None
    encoder_spec: EncoderSpec | None = None
    columns: tuple[int, ...] = ()
    marks: MarkIndex = field(default_factory=shipped_marks)

    def task_labels(self, task: str) -> int:
        """Return the number of labels of a task that the probe knows, over all models; 0 for an unknown task."""
        tasks = None if self.probe is None else self.probe.tasks
        return 0 if tasks is None or not task else tasks.n_labels(task)

    def judge(self, features: FloatArray, task: str = "") -> Judgement:
        """Return what the probe says about one prompt. `features` has shape (d,); `task` is the key of its task."""
        if self.probe is None:
            raise ConfigError(f"policy {self.ref.name!r} has no probe to judge with.")
        loss, risk, leverage, kinds = self.probe.predict_one(features, task)
        return Judgement(
            raw=tuple([loss[column] for column in self.columns]),
            risk=tuple([risk[column] for column in self.columns]),
            difficulty=math.fsum(loss) / len(loss),
            leverage=leverage,
            kinds=None if kinds is None else NearKinds(tuple([NearKind(*kind) for kind in kinds.nearest]), kinds.known),
        )

    def judge_score(self, used: ScoreUsed) -> Judgement | None:
        """Return what the caller's score says about one request, or None if it cannot be used."""
        score = self.rules.file.score
        if score is None or used.fault or used.value is None:
            return None
        risk = tuple([one.risk(used.value) for one in score.risks])
        return Judgement(raw=risk, risk=risk, difficulty=math.fsum(risk) / len(risk), leverage=0.0)

    def judge_scores(self, values: Iterable[float]) -> list[Judgement | None]:
        """Return what the caller's score says about each request, NaN standing for a request without one.

        These are the judgements that `judge_score` gives one by one.
        """
        score = self.rules.file.score
        if score is None:
            raise ConfigError(f"policy {self.ref.name!r} has no score of the caller to judge by.")
        name = score.name.lower()
        return [self.judge_score(score.read({name: value})) for value in values]

    def judge_all(self, prediction: ProbePrediction) -> list[Judgement]:
        """Return the judgement of each prompt of a prediction: the same numbers as `judge` gives one by one."""
        columns = list(self.columns)
        return [
            Judgement(tuple(raw), tuple(risk), difficulty, leverage)
            for raw, risk, difficulty, leverage in zip(
                prediction.loss[:, columns].astype(np.float64).tolist(),
                prediction.risk[:, columns].tolist(),
                prediction.loss.mean(axis=1).tolist(),
                prediction.leverage.tolist(),
                strict=True,
            )
        ]

    def to_json(self) -> str:
        """Return the policy file as JSON, with defaults and looked-up prices filled in, without passwords."""
        data = self.rules.file.model_dump(mode="json", by_alias=True)
        if self.certificate is not None:
            data["certificate"]["expired"] = is_expired(self.certificate)
        for candidate, prices in zip(data["candidates"], self.rules.prices, strict=True):
            candidate["prices"] = prices.model_dump(mode="json") if prices else None
            candidate["api_base"] = shown_base(candidate["api_base"])
        return json.dumps(data, ensure_ascii=False)

    @property
    def certificate(self) -> CertificateRecord | None:
        """Return the certificate of the policy's rule, or None if the policy has no certificate."""
        return self.rules.file.certificate

    def profiles(self) -> tuple[ServedPolicy, ...]:
        """Return each profile as a policy of its own with the name `NAME:PROFILE`."""
        return tuple(self._profile(name) for name in self.rules.file.profiles)

    def _profile(self, name: str) -> ServedPolicy:
        file = self.rules.file.with_profile(name)
        ref = ArtifactRef(f"{file.name}:{name}", file.version, file.digest)
        return replace(self, rules=replace(self.rules, file=file), ref=ref)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise EncoderMismatchError if the probe was fitted on another encoder.

        The same encoder in another runtime differs in its last bits, and with them a decision right at a threshold. It
        is accepted with a warning, unless the policy has a certificate: that is about the decisions in one runtime.
        """
        if self.probe is None or self.encoder_spec is None:
            return
        own, here = self.encoder_spec.precision, encoder.spec.precision
        if not encoder.spec.differs_in_rounding_only(self.encoder_spec):
            self.probe.check_encoder(encoder.spec.identity)
        elif self.certificate is None:
            log.warning(_OTHER_ROUNDING, self.ref.name, own, here)
        else:
            raise EncoderMismatchError(
                f"policy {self.ref.name!r} must be served in {own}, which its certificate is for; this machine "
                f"computes {here}, with which a decision right at a threshold may differ. Serve it on x86-64 with "
                f"AVX2 and the package installed where a C compiler is, or fit and tune it on this machine."
            )


def load_policies(paths: Sequence[Path]) -> tuple[ServedPolicy, ...]:
    """Return the policies in these files, in order, each followed by its profiles.

    Raises ConfigError for a policy that cannot be used, and for two policies of the same name.
    """
    return with_all_profiles([load_policy(path) for path in paths])


def with_all_profiles(loaded: Sequence[ServedPolicy]) -> tuple[ServedPolicy, ...]:
    """Return policies in order, each followed by its profiles. Raises ConfigError for two of the same name."""
    policies = tuple(served for policy in loaded for served in (policy, *policy.profiles()))
    for name, count in Counter(policy.ref.name for policy in policies).items():
        if count > 1:
            raise ConfigError(f"policy names must be distinct, {name!r} is the name in {count} files; rename one.")
    return policies


def missing_keys(policy: ServedPolicy) -> list[str]:
    """Return the names of the environment variables for the candidates' keys that are not set in this process."""
    named = {c.api_key_env for c in policy.rules.file.candidates if c.api_key_env}
    return sorted(name for name in named if not os.environ.get(name, "").strip())


def load_policy(path: Path, probe: Path | None = None) -> ServedPolicy:
    """Return the policy in a YAML file, with its probe and prices.

    probe: the folder of the probe; None takes the one that the file names.

    Raises ConfigError, which names the file and what is wrong with it or with its probe.
    """
    file = read_policy_file(path)
    folder = probe_folder(file, path) if probe is None else probe
    try:
        policy = assemble(file, None if folder is None else artifact.load(folder))
    except ProbesError as error:
        raise ConfigError(f"policy file {path}: its probe {file.probe!r} cannot be used: {error}") from error
    for served in (policy, *policy.profiles()):
        check_certificate(served.rules, served.probe_ref.digest if served.probe_ref else None, str(path))
    return policy


def probe_folder(file: PolicyFile, path: Path) -> Path | None:
    """Return the folder of the probe that a policy file at `path` names; None if it names none."""
    if file.probe is None:
        return None
    if file.probe.startswith(_BUILTIN):
        return DEFAULTS / file.probe.removeprefix(_BUILTIN)
    return path.parent / Path(file.probe).expanduser()


def assemble(file: PolicyFile, probe: DifficultyProbe | None) -> ServedPolicy:
    """Return the policy that a policy file and a loaded probe make together.

    Raise ConfigError or EncoderError if they do not fit together.
    """
    prices = tuple(resolve_prices(candidate) for candidate in file.candidates)
    ref = ArtifactRef(file.name, file.version, file.digest)
    marks = marks_with(file.harness_marks)
    if probe is None:
        score = ArtifactRef(f"score {file.score.name}", "1", file.score.digest) if file.score else None
        return ServedPolicy(Rules(file, prices, max_leverage=None), ref, probe_ref=score, marks=marks)
    unknown = [c.name_in_probe for c in file.candidates if c.name_in_probe not in probe.models]
    if unknown:
        raise ConfigError(
            f"every candidate of policy {file.name!r} must be a model of its probe ({', '.join(probe.models)}), "
            f"{', '.join(unknown)} are not; set `probe_model`, or fit a probe that covers them."
        )
    if probe.encoder is None:
        raise EncoderError("it was fitted on precomputed features and names no encoder, so prompts cannot be judged.")
    limit = file.abstain_above_leverage
    return ServedPolicy(
        rules=Rules(file, prices, max_leverage=probe.leverage_limit if limit == "probe" else limit),
        ref=ref,
        probe=probe,
        probe_ref=ArtifactRef(probe.card.title, probe.card.created, probe.identity),
        encoder_spec=EncoderSpec.from_dict(probe.encoder),
        columns=tuple(probe.models.index(c.name_in_probe) for c in file.candidates),
        marks=marks,
    )
