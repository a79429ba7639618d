"""Check for `elle doctor` whether a service could decide and answer by its policies, with what they name."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime

from router.cli.checking.finding import Finding, WantedService, fail, ok, warn
from router.cli.checking.service import SOON_DAYS
from router.cli.steps.validate_file import what_keeps_from_answering
from router.policies.certificate import is_expired
from router.policies.loading import DEFAULT_POLICY, ServedPolicy, load_policies
from router.quoting import did_you_mean, quoted
from router.rollout.canary_file import read_canary
from router.versions.checking import check_policies
from router.versions.opening import store_at
from router.versions.store import load_active


class PolicyChecks:
    """Holds the checks of policies, which load them once.

    variables: the names of all environment variables ELLE_... that elle itself reads.
    """

    def __init__(self, variables: Collection[str]) -> None:
        self._variables = variables
        self._loaded: tuple[ServedPolicy, ...] = ()

    def check_policies(self, name: str, wanted: WantedService) -> Iterator[Finding]:
        """Load every policy with its probe and prices."""
        settings = wanted.settings
        if settings.store is not None:
            self._loaded = load_active(store_at(settings.store))
        else:
            self._loaded = load_policies(settings.policies or (DEFAULT_POLICY,))
        for policy in self._own:
            yield ok(
                name, f"{policy.ref.name} {policy.ref.digest[:12]} with {len(policy.rules.file.names)} candidates."
            )
            yield from _of_prices(name, policy)
        if settings.shadows:
            yield ok(name, f"{len(load_policies(settings.shadows))} shadow policies can be loaded.")

    def check_encoder(self, name: str, wanted: WantedService) -> Iterator[Finding]:
        """Find the encoder's files, and let each probe judge one prompt."""
        if not self._loaded:
            yield _nothing_loaded(name)
            return
        started = time.monotonic()
        check_policies(self._loaded, wanted.settings.encoder_dir)
        took_s = time.monotonic() - started
        if all(policy.encoder_spec is None for policy in self._loaded):
            yield ok(name, "no policy needs an encoder.")
        else:
            yield ok(name, f"the encoder is found, and every probe judges a prompt ({took_s:.1f} s with loading).")

    def check_certificates(self, name: str, _: WantedService) -> Iterator[Finding]:
        """Look when the certificates of the policies expire."""
        if not self._loaded:
            yield _nothing_loaded(name)
        for policy in self._loaded:
            yield _of_certificate(name, policy)

    def check_candidates(self, name: str, _: WantedService) -> Iterator[Finding]:
        """Look whether each candidate can be asked from this machine. Nothing is sent."""
        if not self._loaded:
            yield _nothing_loaded(name)
        for policy in self._own:
            unset, problems = what_keeps_from_answering(policy)
            for variable in unset:
                do = f"Export it for the service: `export {variable}=...`; for decisions alone it is not needed."
                yield fail(name, f"{policy.ref.name}: the variable {variable} is not set here.", do)
            yield from (fail(name, f"{policy.ref.name}: {problem}") for problem in problems)
            if not unset and not problems:
                yield ok(name, f"{policy.ref.name}: every candidate can be asked; nothing was sent.")

    def check_variables(self, name: str, _: WantedService) -> Iterator[Finding]:
        """Look for variables that begin like ours and that nothing reads."""
        keys = {one.api_key_env for policy in self._loaded for one in policy.rules.file.candidates}
        known = {*self._variables, *(key for key in keys if key)}
        unknown = sorted(one for one in os.environ if one.startswith("ELLE_") and one not in known)
        for variable in unknown:
            do = did_you_mean(variable, known).strip() or "Remove it, or see the list in docs/reference/server.md."
            yield warn(name, f"nothing reads the variable {quoted(variable)}.", do)
        if not unknown:
            yield ok(name, "every variable ELLE_... is one that elle reads.")

    def check_canary(self, name: str, wanted: WantedService) -> Iterator[Finding]:
        """Read the canary, and look whether both of its policies are served."""
        path = wanted.settings.canary
        if path is None:
            return
        if not path.exists():
            yield warn(name, f"there is no canary {path}.", "Begin one with `elle canary start`, or leave it away.")
            return
        canary, served = read_canary(path).canary, {policy.ref.name for policy in self._loaded}
        missing = [one for one in (canary.plan.policy, canary.plan.base) if one not in served]
        if missing and self._loaded and canary.share > 0:
            words = " and ".join(map(quoted, missing))
            yield warn(
                name,
                f"the canary {canary.plan.policy} decides nothing, because the service does not serve {words}.",
                "Serve both policies (--policy), or begin a canary of policies that are served.",
            )
        else:
            yield ok(name, f"the canary {canary.plan.policy} is {canary.status} and decides {100 * canary.share:g} %.")

    @property
    def _own(self) -> Sequence[ServedPolicy]:
        """The policies without their profiles."""
        return [policy for policy in self._loaded if ":" not in policy.ref.name]


def _nothing_loaded(name: str) -> Finding:
    return warn(name, "the policies could not be loaded, so this was not checked.", "Mend the policies first.")


def _of_prices(name: str, policy: ServedPolicy) -> Iterator[Finding]:
    pairs = zip(policy.rules.file.names, policy.rules.prices, strict=True)
    unpriced = [candidate for candidate, prices in pairs if prices is None]
    if unpriced:
        yield warn(
            name,
            f"{policy.ref.name}: nobody knows what {', '.join(unpriced)} cost, so savings and limits in USD are wrong.",
            "State `prices` of these candidates.",
        )


def _of_certificate(name: str, policy: ServedPolicy) -> Finding:
    certificate = policy.certificate
    if certificate is None:
        return ok(name, f"{policy.ref.name} has no certificate.")
    do = "Tune it on outcomes of today (docs/tune.md); it decides as before meanwhile."
    if is_expired(certificate):
        return warn(name, f"the certificate of {policy.ref.name} has expired.", do)
    days = (certificate.expires - datetime.now(UTC)).days
    says = f"the certificate of {policy.ref.name} expires in {days} days."
    return warn(name, says, do) if days < SOON_DAYS else ok(name, says)
