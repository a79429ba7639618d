"""Let callers in who may do what they ask (`Gate`): by a token of ours, or by a JSON Web Token of somebody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from router.errors import ForbiddenError, UnauthenticatedError
from router.identity.accounts import Accounts
from router.identity.admission import Admission, current_admission
from router.identity.counts import DoorName, Refusal, RefusalCounts
from router.identity.json_web_tokens import BadTokenError, ExpiredTokenError, JwtSettings, WebTokens
from router.identity.method_scopes import ANSWERING, RUNNING, Needed
from router.identity.principal import ANYBODY, Principal, current_principal
from router.identity.server_tls import ServerCertificates
from router.identity.token_book import TokenBook
from router.observing.trace_context import note_trace
from router.watched_files import Refreshable, WatchedFiles

#: Headers besides `authorization` that may hold a token: those of the SDKs of Anthropic and of Azure.
_KEY_HEADERS = ("x-api-key", "api-key")

_HOW = "send it as `authorization: Bearer TOKEN`, or in the header `x-api-key`"


@dataclass(frozen=True)
class IdentitySettings:
    """Says how callers prove who they are. Without any of it nobody is asked.

    Attributes:
        tokens: the file of tokens, as `elle token` writes it.
        jwt: the JSON Web Tokens that are taken besides.
    """

    tokens: Path | None = None
    jwt: JwtSettings | None = None

    @property
    def is_on(self) -> bool:
        """Return whether callers must prove who they are."""
        return self.tokens is not None or self.jwt is not None


class Gate:
    """Checks the credential of each call. One gate serves all doors of a process.

    Args:
        settings: where credentials are checked; by default nobody is asked for one.
        open_admin: whether everybody may change and watch the service if nobody is asked for a credential. That must be
            so only if nobody but programs on this machine can call.
        now: returns the Unix time in seconds.

    Attributes:
        counts: the calls that were refused.
        keeps_traces: True if the traces that callers send along are kept for those who continue them.
        accounts: what each caller has used.

    Raises ConfigError if a file cannot be used.
    """

    def __init__(
        self,
        settings: IdentitySettings | None = None,
        *,
        open_admin: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or IdentitySettings()
        self._open_admin = open_admin
        self._now = now
        self.counts = RefusalCounts()
        self.keeps_traces = False
        self.accounts = Accounts(now=now)
        self._tokens: WatchedFiles[TokenBook] | None = None
        if (path := self._settings.tokens) is not None:
            self._tokens = WatchedFiles("tokens", (path,), lambda: TokenBook.load(path))
        jwt = self._settings.jwt
        self._web_tokens = WebTokens(jwt, now=now) if jwt is not None else None

    @property
    def is_on(self) -> bool:
        """Return whether callers must prove who they are."""
        return self._settings.is_on

    @property
    def looks_at_headers(self) -> bool:
        """Return whether `admit` has anything to do, so that doors need not read headers for nothing."""
        return self.is_on or self.keeps_traces

    def admit(self, door: DoorName, headers: Mapping[str, str], needed: Needed) -> Principal:
        """Return who calls, and remember it for the current task (`current_principal`).

        headers: of the call, with names in lower case. needed: the scopes of which one is enough.

        Raises UnauthenticatedError, ForbiddenError or LimitExceededError, and counts it; NotReadyError if the keys of
        the identity provider have not come yet.
        """
        if self.keeps_traces:
            note_trace(headers)
        if needed is None or not self.is_on:
            if needed == RUNNING and not self._open_admin:
                self.counts.add(door, Refusal.NO_TOKEN)
                raise UnauthenticatedError(
                    "this needs a token with the scope admin, and the service was started without --tokens; other "
                    "machines can reach it, so it must not be open to everybody."
                )
            return ANYBODY
        principal = self._authenticate(door, headers)
        if not principal.scopes & needed:
            self.counts.add(door, Refusal.WRONG_SCOPE)
            raise ForbiddenError(
                f"this token must have the scope {' or '.join(sorted(needed))} for this call, and it has "
                f"{', '.join(sorted(principal.scopes)) or 'none'}; ask whoever runs the service for another token."
            )
        current_principal.set(principal)
        account = self.accounts.of(principal)
        admission = Admission(account, door, self.counts, pays=needed == ANSWERING)
        admission.take_request()
        current_admission.set(admission)
        return principal

    def refresh(self) -> bool:
        """Take over changes of the files now, and return whether there were any."""
        changed = [one.refresh() for one in self.watched_with(None)]
        return any(changed)

    def watched_with(self, certificates: ServerCertificates | None) -> list[Refreshable]:
        """Return what `kept_fresh` looks at: the tokens and keys of callers, and a door's own certificates, if any."""
        keys = self._web_tokens.keys if self._web_tokens is not None else None
        files = certificates.watched if certificates is not None else None
        return [one for one in (self._tokens, keys, files) if one is not None]

    def _authenticate(self, door: DoorName, headers: Mapping[str, str]) -> Principal:
        credential = credential_of(headers)
        if not credential:
            self._refuse(door, Refusal.NO_TOKEN, f"the call must carry a token and carries none; {_HOW}.")
        if self._web_tokens is not None and credential.count(".") == 2:
            return self._web_principal(door, credential, self._web_tokens)
        found = self._tokens.value.find(credential) if self._tokens else None
        if found is None:
            self._refuse(
                door, Refusal.UNKNOWN_TOKEN, f"the token of this call is not known here; check it, and {_HOW}."
            )
        token, principal = found
        if token.revoked_at is not None:
            message = "the token of this call is revoked; ask whoever runs the service for another."
            self._refuse(door, Refusal.REVOKED, message)
        if principal.expires_at is not None and principal.expires_at <= self._now():
            message = "the token of this call is expired; ask whoever runs the service for another."
            self._refuse(door, Refusal.EXPIRED, message)
        return principal

    def _web_principal(self, door: DoorName, credential: str, web_tokens: WebTokens) -> Principal:
        try:
            return web_tokens.find(credential)
        except ExpiredTokenError:
            self._refuse(door, Refusal.EXPIRED, "the token of this call is expired; get a new one where it came from.")
        except BadTokenError:
            message = "the token of this call is not valid here; get one for this service from your identity provider."
            self._refuse(door, Refusal.UNKNOWN_TOKEN, message)

    def _refuse(self, door: DoorName, reason: Refusal, message: str) -> NoReturn:
        self.counts.add(door, reason)
        raise UnauthenticatedError(message)


def credential_of(headers: Mapping[str, str]) -> str:
    """Return the token that the headers of a call carry, or an empty text. Names of headers are in lower case."""
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return next((value.strip() for name in _KEY_HEADERS if (value := headers.get(name, "")).strip()), "")


#: Lets everybody in.
OPEN_GATE = Gate()
