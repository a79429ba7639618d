"""Keep tokens in a file that holds only their digests: make them, revoke them, and find the one that a caller sends."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from probes.atomic_write import write_file
from probes.bounded.files import read_bounded
from probes.bounded.text import decode_json, decode_text, not_there, os_fault
from router.errors import ConfigError
from router.identity.principal import NO_LIMITS, Principal, Scope, TokenLimits
from router.quoting import quoted

#: How every token begins. Programs that look for leaked secrets know it by that.
TOKEN_PREFIX = "elle_"  # noqa: S105  (no token)

#: The largest file of tokens, in bytes, and the largest number of tokens in it.
_MOST_BYTES, _MOST_TOKENS = 4 * 1024 * 1024, 10_000

_MODEL = pydantic.ConfigDict(extra="forbid", frozen=True)


class Token(pydantic.BaseModel):
    """Describes a token as the file keeps it.

    Attributes:
        id: names the token in lists, logs and records; it is no secret.
        name: whom it is for, in the operator's words.
        sha256: the digest of the token. A token holds 256 random bits, so nobody can guess it from its digest.
        scopes: what it allows.
        created_at, expires_at, revoked_at: times with their zone; None if it does not expire, or is not revoked.
        limits: how much it allows.
    """

    model_config = _MODEL

    id: str = pydantic.Field(pattern=r"^[a-z0-9]{1,32}$")
    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@/-]{0,63}$")
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    scopes: frozenset[Scope] = pydantic.Field(min_length=1)
    created_at: pydantic.AwareDatetime
    expires_at: pydantic.AwareDatetime | None = None
    revoked_at: pydantic.AwareDatetime | None = None
    limits: TokenLimits = NO_LIMITS

    @property
    def principal(self) -> Principal:
        """Return the caller that this token stands for."""
        expires = self.expires_at.timestamp() if self.expires_at else None
        return Principal(f"token:{self.id}", self.name, self.scopes, self.limits, expires)

    def state(self, now: datetime.datetime) -> Literal["valid", "expired", "revoked"]:
        """Return whether the token can be used at this time."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class _TokenFile(pydantic.BaseModel):
    model_config = _MODEL

    schema_: Literal["elle.tokens/1"] = pydantic.Field("elle.tokens/1", alias="schema")
    tokens: tuple[Token, ...] = pydantic.Field((), max_length=_MOST_TOKENS)


_RULE_OF_NAMES = (
    "the name of a token must have 1 to 64 letters, digits, spaces and characters of ._@/-, and begin with a letter or "
    "a digit."
)


class TokenBook:
    """Holds all tokens of a file, and finds the one that a caller sends.

    Raises ConfigError if two tokens have the same id, name or digest.
    """

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self.tokens = tuple(tokens)
        for field in ("id", "name", "sha256"):
            counts = Counter(getattr(one, field) for one in self.tokens)
            if len(counts) < len(self.tokens):
                twice = "a digest" if field == "sha256" else quoted(counts.most_common(1)[0][0])
                raise ConfigError(f"tokens must differ in their {field}; {twice} occurs twice. Remove one of them.")
        self._by_digest = {one.sha256: (one, one.principal) for one in self.tokens}

    def find(self, text: str) -> tuple[Token, Principal] | None:
        """Return the token that is written like this, and whom it stands for; None if there is no such token.

        It may be expired or revoked. The time that this takes tells nothing about the tokens of others: what is looked
        up is a digest, whose bits nobody can choose.
        """
        digest = token_digest(text)
        return self._by_digest.get(digest)

    @classmethod
    def load(cls, path: Path) -> TokenBook:
        """Read a file of tokens. Raises ConfigError if it cannot be read or trusted."""
        try:
            if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(
                    f"only its owner may write {path}, or others could add tokens; run `chmod 600 {path}`."
                )
            raw = read_bounded(path, _MOST_BYTES)
        except FileNotFoundError as error:
            raise ConfigError(
                f"the file of tokens {path} {not_there(path)}; `elle token create NAME --tokens {path}` makes it."
            ) from error
        except (OSError, ValueError) as error:
            fault = os_fault(error) if isinstance(error, OSError) else error
            raise ConfigError(f"the file of tokens {path} cannot be read: {fault}.") from error
        try:
            text = decode_text(raw)
            decode_json(text)
        except ValueError as error:
            raise ConfigError(f"the file of tokens {path} must be JSON: {error}.") from error
        try:
            return cls(_TokenFile.model_validate_json(text).tokens)
        except pydantic.ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = f" at {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
            raise ConfigError(f"the file of tokens {path} is wrong{place}: {first['msg']}.") from None

    def save(self, path: Path) -> None:
        """Replace the file of tokens by these tokens, in one step. Raises ArtifactError.

        Only its owner can read a new one. One that exists keeps its owner, and its group if that may read it: a service
        that runs as somebody else must still be able to, or it would go on with tokens that are revoked.
        """
        mode = 0o640 if path.exists() else 0o600
        document = {"schema": "elle.tokens/1", "tokens": [one.model_dump(mode="json") for one in self.tokens]}
        write_file(path, json.dumps(document, indent=1, default=sorted).encode() + b"\n", mode=mode)


def new_token(name: str, scopes: Iterable[Scope], **rest: Any) -> tuple[str, Token]:
    """Return a new token as its caller writes it, which nobody can find out later, and as the file keeps it.

    rest: `expires_at` and `limits`. Raises ConfigError for a name that the file cannot hold.
    """
    token_id = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(8))
    text = f"{TOKEN_PREFIX}{token_id}_{secrets.token_urlsafe(32)}"
    try:
        token = Token(
            id=token_id, name=name, sha256=token_digest(text), scopes=frozenset(scopes), created_at=now_utc(), **rest
        )
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        why = _RULE_OF_NAMES if place == "name" else f"the token cannot have this {place}: {first['msg']}."
        raise ConfigError(why) from None
    return text, token


def require_new_name(name: str, known: Iterable[Token]) -> None:
    """Raise ConfigError if a token has this name. A revoked one keeps its name, because logs and metrics show names."""
    for token in known:
        if token.name == name:
            state = "which is revoked and keeps its name" if token.revoked_at else "which is not revoked"
            raise ConfigError(f"there is a token {token.id} of the name {quoted(name)}, {state}; choose another name.")


def token_digest(text: str) -> str:
    """Return the digest under which the file keeps a token."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def now_utc() -> datetime.datetime:
    """Return the time now, to the second, in UTC."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@contextlib.contextmanager
def changing(path: Path) -> Iterator[list[Token]]:
    """Yield the tokens of a file as a list to change, and write what it holds at the end. Nobody else writes meanwhile.

    A file that does not exist holds no tokens yet. If the path is a link, what it leads to is changed: a service may
    read the file under its own name. Raises ConfigError or ArtifactError.
    """
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"the folder {path.parent} cannot be opened: {os_fault(error)}.") from error
    try:
        # The file itself is replaced, so that a lock on it would lock nobody out.
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = list(TokenBook.load(path).tokens) if path.exists() else []
        yield tokens
        TokenBook(tokens).save(path)
    finally:
        os.close(folder)
