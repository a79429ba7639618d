"""Define the certificate in a policy file (`CertificateRecord`), which records what `elle tune` has shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from router.policies.file_model import Name, Probability, StrictModel

TargetKind = Literal["max_loss", "min_quality", "max_strong_share", "max_cost_usd_per_1k"]

#: The requests that a certificate is about: every request, or those for which no session holds its candidate.
Covers = Literal["every_request", "requests_outside_sessions"]


class CertifiedTarget(StrictModel):
    """One target that was shown to hold. The certified figure is `limit`; the other fields describe how.

    Attributes:
        kind: the figure that is bounded. `max_loss`: the mean score of the reference minus that of the policy;
            `min_quality`: the mean score; `max_strong_share`: the share of requests that the reference answers;
            `max_cost_usd_per_1k`: the cost of 1,000 requests in USD.
        limit: the bound that was asked for.
        estimate: the mean of the figure on the calibration prompts.
        bound_on_estimate: the confidence bound of this policy by itself; never beyond `limit`.
        method: the name of the bound in `probes.certificates.bounds`.
        delta: the level of the test; the levels of all targets that were tested together add up to 1 - confidence.
    """

    kind: TargetKind
    limit: float
    estimate: float
    bound_on_estimate: float
    method: str
    delta: Annotated[float, Field(gt=0, lt=1)]


class CertificateRecord(StrictModel):
    """What `elle tune` has shown of a rule, for traffic that is like the calibration prompts.

    Attributes:
        confidence: the confidence, 0 to 1, that all targets of all rules that were tuned together hold.
        targets: the targets that are certified.
        reference: the candidate that losses are measured against.
        covers: the requests that the certificate is about; `every_request` needs `sessions: ignore`. It is always about
            answers of the chosen candidate, not about those of another one while the chosen candidate is down.
        about: whose opinion quality is: `people`; `judge NAME`, and then it says nothing about people; or `scores`, if
            the data did not say who made them.
        n_calibration: the number of draws of the traffic that it rests on; the probe was fitted on none of them.
        n_human: the number of these draws that people graded for every model; the others were judged only.
        n_seen_left_out: the number of draws that were left out because the fit saw their text. The certificate says
            nothing about such requests.
        n_incomplete: the number of draws that were left out because some model had no score. The certificate says
            nothing about such requests.
        n_seen_kept: the number of draws of a calibration file of its own with a text that the fit saw too.
        weak_share: the share of the draws that the cheapest tier answers.
        expected_cost_saving: the share of the reference's cost that is saved on the draws; null if prices are unknown.
        data_digest: SHA-256 of the data file; of several files, the SHA-256 of their digests one after another.
        probe: the identity of the probe; the policy is refused with another probe.
        decides: the digest of everything in the policy that decides (`certificate.digest_of`); the policy is refused if
            any of that was edited.
        attempts: the number of tunings on these data in the probe's log, this one included; absent if not counted.
        created: the time at which `elle tune` wrote it, with its time zone.
        expires: the time at which it expires, with its time zone; after that it is loaded with a warning.
        digest: the digest of all other fields (`certificate.sealed`); an edited certificate is refused.
    """

    confidence: Annotated[float, Field(gt=0, lt=1)]
    targets: tuple[CertifiedTarget, ...] = Field(min_length=1)
    reference: Name
    covers: Covers = "requests_outside_sessions"
    about: Annotated[str, Field(pattern=r"^(people|scores|judge .+)$", max_length=200)] = "scores"
    n_calibration: int = Field(gt=0)
    n_human: int = Field(default=0, ge=0)
    n_seen_left_out: int = Field(default=0, ge=0)
    n_seen_kept: int = Field(default=0, ge=0)
    n_incomplete: int = Field(default=0, ge=0)
    weak_share: Probability
    expected_cost_saving: float | None
    data_digest: str
    probe: str
    decides: str
    attempts: Annotated[int, Field(gt=0)] | None = None
    created: AwareDatetime
    expires: AwareDatetime
    digest: str = ""
