"""Say where the ledger and other databases are, and what the ledger keeps. This file needs no database library."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from router.errors import ConfigError
from router.quoting import quoted

#: The bytes of a key that is made, and the least that a key file must hold.
_KEY_BYTES, _LEAST_KEY_BYTES = 32, 16

#: The largest key file that is read.
_MOST_KEY_BYTES = 4096

#: Schemes of URLs that mean PostgreSQL.
_POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


#: A part of a message of SQLite's driver, and what a person can do about it.
_HELPS = (
    ("not a database", "this file is no ledger; give the path of one, or restore it from a backup"),
    ("malformed", "the file is damaged; restore it from a backup"),
    ("no such table", "the file has lost a table; restore it from a backup"),
    ("already exists", "the file has lost the version of its tables; restore it from a backup"),
    ("locked", "another program holds it; try again when that has ended"),
    ("unable to open", "its folder must exist, and SQLite must be able to write into it"),
    ("readonly", "SQLite must be able to write into the file and its folder"),
    ("disk is full", "free some space"),
)
_ELSE_HELPS = "check its place, and that its database runs"


@dataclass(frozen=True)
class DatabaseSettings:
    """Says which database is used.

    Attributes:
        place: the path of an SQLite file, or the URL of a PostgreSQL database.
        key_file: a file with the secret key of the digests; None takes `PATH.key` beside the SQLite file, which is made
            if it does not exist.
        option: the option of `elle serve` that names the place.
    """

    place: str
    key_file: Path | None = None
    option: str = "--ledger"

    @property
    def is_sqlite(self) -> bool:
        """Return whether the database is an SQLite file."""
        return not _is_url(self.place)

    @property
    def url(self) -> str:
        """Return the URL by which SQLAlchemy opens PostgreSQL. It may hold a password.

        Raises ConfigError for a URL of another kind of database.
        """
        scheme, _, rest = self.place.partition("://")
        if scheme not in _POSTGRES_SCHEMES:
            raise ConfigError(
                f"{self.option} must be the path of an SQLite file or a URL postgresql://..., got a URL "
                f"{quoted(scheme)}."
            )
        return f"postgresql+psycopg://{rest}"

    @property
    def name(self) -> str:
        """Return the place in words for people, without user and password."""
        if self.is_sqlite:
            return self.place
        parts = urlsplit(self.place)
        return f"postgresql://{parts.hostname or ''}{parts.path}"

    def unusable(self, words: str) -> str:
        """Return an error message of one line for a database that fails. `words`: the message of its driver."""
        helps = (helps for said, helps in _HELPS if self.is_sqlite and said in words)
        return f"cannot use the ledger {self.name} ({words}); {next(helps, _ELSE_HELPS)}."

    def key(self) -> bytes:
        """Return the secret key of the digests. The key of an SQLite file is made if it does not exist.

        Raises ConfigError if the key cannot be read or made, or is too short.
        """
        path = self.key_file
        if path is None:
            if not self.is_sqlite:
                raise ConfigError(
                    f"{self.option}-key must name a file with a secret key, because a database by URL has no file "
                    "beside which the key could lie. Make one with `openssl rand -hex 32 > elle.key` and give it to "
                    "every process that writes to this database."
                )
            path = Path(f"{self.place}.key")
            _make_key(path)
        return _read_key(path)

    def existing_key(self) -> bytes:
        """Return the secret key of the digests, which must exist. Raises ConfigError if it cannot be read."""
        if self.key_file is None and not self.is_sqlite:
            raise ConfigError("--ledger-key must name the file of the key that the service uses.")
        return _read_key(self.key_file or Path(f"{self.place}.key"))


@dataclass(frozen=True)
class LedgerSettings(DatabaseSettings):
    """Holds the settings of a ledger.

    Attributes:
        keep_prompts: whether the text of prompts is kept. By default only a keyed digest of it is kept.
        keep_features: whether the features of prompts are kept, in float16.
        keep_days: the number of days after which rows are deleted; None keeps them for ever.
        spool_dir: the folder to which rows are written while the database does not take them; None takes `PATH.spool`
            beside the SQLite file, or `elle-ledger.spool` in the working directory.
        spool_bytes: the most bytes of the spool. When it is full, rows are dropped and counted.
        queue_rows: the most rows that wait in memory. When the queue is full, rows are dropped and counted.
        flush_s: the longest time in seconds between an event and the attempt to write it.
    """

    keep_prompts: bool = False
    keep_features: bool = False
    keep_days: float | None = None
    spool_dir: Path | None = None
    spool_bytes: int = 256 * 1024 * 1024
    queue_rows: int = 20_000
    flush_s: float = 0.25

    def require_no_folder(self) -> None:
        """Raise ConfigError if the place of an SQLite ledger is a folder."""
        if self.is_sqlite and Path(self.place).is_dir():
            raise ConfigError(f"the ledger must be a file, and {self.place} is a folder; add the name of a file.")

    @property
    def spool_folder(self) -> Path:
        """Return the folder of the spool."""
        if self.spool_dir is not None:
            return self.spool_dir
        return Path(f"{self.place}.spool") if self.is_sqlite else Path("elle-ledger.spool")


def _is_url(place: str) -> bool:
    return re.match(r"[a-z][a-z0-9+]*://", place) is not None


def _make_key(path: Path) -> None:
    """Write a new key into a file that only its owner may read, unless the file exists."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several workers may start at once. A link appears with its whole content, and only the first one succeeds.
        draft = path.with_name(f"{path.name}.{os.getpid()}.new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        if not path.exists():
            raise ConfigError(f"cannot write the key {path} ({error.strerror}); check the folder.") from error


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            key = file.read(_MOST_KEY_BYTES).strip()
    except FileNotFoundError as error:
        raise ConfigError(
            f"the key {path} does not exist; the key of a ledger lies where the service made it, and --ledger-key "
            "names it."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the key {path} ({error.strerror}); check who may read it.") from error
    if len(key) < _LEAST_KEY_BYTES:
        raise ConfigError(
            f"the key {path} must hold at least {_LEAST_KEY_BYTES} bytes, got {len(key)}; make one with "
            "`openssl rand -hex 32`."
        )
    return key
