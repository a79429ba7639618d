"""The verbs of `elle policy` that work on a store: list, show, diff, validate, activate, rollback and history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import AUTHOR, ENCODER_DIR, JSON, PATH, new_folder
from router.cli.output import print_json, stdout

if TYPE_CHECKING:
    from router.policies.loading import ServedPolicy
    from router.versions.store import ChangeRequest, VersionStore
    from router.versions.version import PolicyVersion


def _store_option(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--store",
        metavar="DIR|URL",
        required=required,
        envvar="ELLE_STORE",
        show_envvar=True,
        help="The directory, or the PostgreSQL database `postgresql://...`, that holds the versions. A service that is "
        "started with the same --store follows it.",
    )


_STORE = _store_option(required=True)
REASON = click.option("--reason", required=True, help="Why; it is kept in the audit trail.")
EXPECT = click.option(
    "--expect",
    metavar="VERSION|none",
    help="Change nothing unless this version is the active one. Default: the one that is active when the verb begins.",
)


def _open(store: str, *, makes: bool = False) -> VersionStore:
    """Return the store at a place. makes: whether a directory that does not exist becomes a store."""
    from probes.bounded.text import not_there
    from router.errors import ConfigError
    from router.versions.opening import store_at

    if not store.strip():
        raise ConfigError("--store must name a directory or a database, got an empty text.")
    place = Path(store)
    if not makes and "://" not in store and not place.exists():
        raise ConfigError(
            f"the store {store} {not_there(place)}; `elle policy activate FILE --store {store}` makes it."
        )
    return store_at(store)


def _say_if_empty(store: str, rows: list[dict[str, Any]], what: str) -> None:
    """Say on stderr that a store holds nothing, which whoever mistyped its name would not find out otherwise."""
    if not rows:
        click.echo(f"There is no {what} in {store}. `elle policy activate FILE --store {store}` keeps one.", err=True)


@click.command("list", short_help="List the versions in a store.")
@_STORE
@JSON
def policy_list_verb(store: str, as_json: bool) -> None:
    """List all versions in a store, with the digests that decision records name, and say which ones are active."""
    from rich.table import Table

    from router.cli.changing.shown_versions import rows_of
    from router.versions.version import SHOWN

    rows = list(rows_of(_open(store)))
    _say_if_empty(store, rows, "version")
    if as_json:
        print_json({"versions": rows})
    if as_json or not rows:
        return
    table = Table("policy", "version", "active", "policy digest", "probe digest")
    for row in rows:
        digests = (row["policy_digest"][:SHOWN], row["probe_digest"][:SHOWN])
        table.add_row(row["name"], row["id"][:SHOWN], "yes" if row["active"] else "", *digests)
    stdout().print(table)


@click.command("show", short_help="Show a version, or write its files.")
@click.argument("version")
@_STORE
@click.option(
    "--out",
    type=PATH,
    callback=new_folder,
    help="Write the policy file and the probe, byte for byte, to this new folder.",
)
@JSON
def policy_show_verb(version: str, store: str, out: Path | None, as_json: bool) -> None:
    """Show VERSION: what it holds, and its policy file without passwords.

    VERSION is the beginning of an id, or of a policy's digest in a decision record, or the name of a policy, whose
    active version is then meant.
    """
    from router.cli.changing.shown_versions import masked_text
    from router.versions.store import find_version

    opened = _open(store)
    found = find_version(opened, version)
    if out is not None:
        _write(opened, found, out)
    if as_json:
        print_json(found.to_dict() | {"text": masked_text(opened, found)})
    elif out is None:
        click.echo(masked_text(opened, found), nl=False)


def _write(store: VersionStore, version: PolicyVersion, out: Path) -> None:
    from probes.atomic_write import replace_directory

    files = store.open(version.id)
    if files.probe is not None:
        replace_directory(out / "probe", {one.name: one.read_bytes() for one in files.probe.iterdir()}, may_hold=())
    out.mkdir(parents=True, exist_ok=True)
    (out / "policy.yaml").write_bytes(files.policy.read_bytes())
    click.echo(f"{out}/policy.yaml is version {version.id}.", err=True)


@click.command("diff", short_help="Show how two versions differ.")
@click.argument("before")
@click.argument("after")
@_STORE
@JSON
def policy_diff_verb(before: str, after: str, store: str, as_json: bool) -> None:
    """Show which lines of the policy file and which files of the probe differ between the versions BEFORE and AFTER."""
    from router.cli.changing.shown_versions import difference
    from router.versions.store import find_version

    opened = _open(store)
    found = difference(opened, find_version(opened, before), find_version(opened, after))
    if as_json:
        print_json(found)
        return
    for line in found["lines"]:
        click.echo(line)
    for name, what in found["probe"].items():
        click.echo(f"probe: {name} is {what}")


@click.command("validate", short_help="Check a policy file, or a version in the store.")
@click.argument("what")
@_store_option(required=False)
@ENCODER_DIR
@JSON
def policy_validate_verb(what: str, store: str | None, encoder_dir: Path | None, as_json: bool) -> None:
    """Check WHAT, a policy file or a version in the store, as `elle policy activate` does first."""
    if store is None and not Path(what).exists():
        raise click.UsageError(f"there is no file {what}; give --store if it is a version in a store.")
    # A file is checked without the store, which may not exist before the first version is activated.
    opened = None if store is None or Path(what).exists() else _open(store)
    policy, _ = _checked(opened, what, encoder_dir)
    if as_json:
        print_json({"valid": True, "policy": policy.ref.name, "digest": policy.ref.digest})
    else:
        click.echo(f"{what} can be activated: policy {policy.ref.name!r}, digest {policy.ref.digest}.")


def _checked(
    store: VersionStore | None, what: str, encoder_dir: Path | None, *, keep: bool = False
) -> tuple[ServedPolicy, PolicyVersion | None]:
    """Return a policy that can decide here, with its version; a file has one only if it is to be kept in the store."""
    from probes.bounded.text import not_there
    from router.errors import ConfigError
    from router.versions.checking import check_policies
    from router.versions.store import find_version, load_versions
    from router.versions.version import read_contents

    if store is not None and not Path(what).exists():
        if Path(what).suffix in {".yaml", ".yml"}:
            fault = not_there(Path(what))
            raise ConfigError(f"the policy file {what} {fault}; write the path of one, or the id of a version.")
        version = find_version(store, what)
        policies = load_versions(store, [version.id])
        check_policies(policies, encoder_dir)
        return policies[0], version
    contents, policy = read_contents(Path(what))
    check_policies((policy, *policy.profiles()), encoder_dir)
    if store is None or not keep:
        return policy, None
    version = store.add(contents, policy)
    # A version with these bytes may have been there already, and may have been damaged since.
    store.open(version.id)
    return policy, version


@click.command("activate", short_help="Make a policy file or a version the active one.")
@click.argument("what")
@_STORE
@REASON
@AUTHOR
@EXPECT
@ENCODER_DIR
@JSON
def policy_activate_verb(what: str, store: str, encoder_dir: Path | None, as_json: bool, **wish: Any) -> None:
    """Check WHAT, a policy file or a version in the store, and make it the active version of its policy.

    A file is kept in the store first, with the probe that it names. A service that follows the store serves the version
    within seconds, after checking it once more.
    """
    from router.versions.store import activate

    opened = _open(store, makes=True)
    _, version = _checked(opened, what, encoder_dir, keep=True)
    assert version is not None  # noqa: S101  (it was kept)
    _say(activate(opened, version, _wish(**wish)), as_json)


@click.command("rollback", short_help="Go back to the version before the active one.")
@click.argument("policy")
@_STORE
@REASON
@AUTHOR
@EXPECT
@JSON
def policy_rollback_verb(policy: str, store: str, as_json: bool, **wish: Any) -> None:
    """Make the version of POLICY active again, byte for byte, that was active before the one that is now.

    A second rollback goes back one further. `elle policy activate VERSION` goes to any version. A version that can no
    longer be read is refused. No prompt is judged here, so that this needs no encoder.
    """
    from router.versions.store import load_versions, roll_back

    opened = _open(store)
    if before := opened.trail().before(policy):
        load_versions(opened, [before])
    _say(roll_back(opened, policy, _wish(**wish)), as_json)


@click.command("history", short_help="Show who made which version active, when, and why.")
@click.argument("policy", required=False)
@_STORE
@JSON
def policy_history_verb(policy: str | None, store: str, as_json: bool) -> None:
    """Show the audit trail of a store, or of one POLICY in it, oldest first. An edited trail is an error."""
    from rich.table import Table

    from router.cli.changing.shown_versions import change_to_dict
    from router.versions.version import SHOWN

    rows = [change_to_dict(one) for one in _open(store).trail().changes if policy in (None, one.policy)]
    _say_if_empty(store, rows, "change" if policy is None else f"change of {policy!r}")
    if as_json:
        print_json({"changes": rows})
    if as_json or not rows:
        return
    table = Table("number", "at", "policy", "what", "before", "after", "author", "reason")
    for row in rows:
        versions = (row["before"][:SHOWN], row["after"][:SHOWN])
        table.add_row(
            str(row["number"]),
            row["at"],
            row["policy"],
            row["kind"],
            *versions,
            row["author"],
            row["reason"],
        )
    stdout().print(table)


def _wish(author: str, reason: str, expect: str | None) -> ChangeRequest:
    from router.versions.store import ChangeRequest

    return ChangeRequest(author, reason, "" if expect == "none" else expect)


def _say(change: Any, as_json: bool) -> None:
    from router.cli.changing.shown_versions import change_to_dict, say_activation

    if as_json:
        print_json(change_to_dict(change))
    else:
        click.echo(say_activation(change))


VERSION_VERBS = (
    *(policy_list_verb, policy_show_verb, policy_diff_verb, policy_validate_verb),
    *(policy_activate_verb, policy_rollback_verb, policy_history_verb),
)
