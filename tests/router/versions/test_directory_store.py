"""A store keeps versions byte for byte, changes what is active by compare-and-swap, and notices every edit."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest
import yaml

from router.cli.changing.shown_versions import rows_of
from router.errors import ConfigError, UnknownVersionError, VersionConflictError
from router.policies.loading import DEFAULT_POLICY
from router.versions.directory_store import DirectoryStore, manifest_of
from router.versions.store import ChangeRequest, activate, find_version, load_active, roll_back
from router.versions.trail import ChangeKind
from router.versions.version import PolicyVersion, id_of, read_contents, version_from
from tests.fakes import write_policy

ME = ChangeRequest("me", "a test")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def keep(store: DirectoryStore, path: Path, **changes: object) -> PolicyVersion:
    """Keep a policy file after keys of it were replaced."""
    if changes:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | changes), "utf-8")
    return store.add(*read_contents(path))


def test_a_version_comes_back_byte_for_byte_whatever_becomes_of_its_files(
    store: DirectoryStore, tmp_path: Path
) -> None:
    path = write_policy(tmp_path)
    path.write_bytes(path.read_bytes() + b"# a comment in \xc3\xa4 file without a last line end")
    before = {file.name: file.read_bytes() for file in (tmp_path / "probe").iterdir()}
    text = path.read_bytes()
    version = keep(store, path)
    path.write_text("nothing", "utf-8")
    (tmp_path / "probe" / "probe.safetensors").write_bytes(b"nothing")
    opened = store.open(version.id)
    assert opened.policy.read_bytes() == text
    assert opened.probe is not None
    assert {file.name: file.read_bytes() for file in opened.probe.iterdir()} == before
    activate(store, version, ME)
    policy, *_ = load_active(store)
    assert (policy.ref.digest, policy.probe_ref and policy.probe_ref.digest) == (
        version.policy_digest,
        version.probe_digest,
    )


def test_the_same_bytes_are_one_version_and_versions_share_their_probe(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    first, again = keep(store, path), keep(store, path)
    other = keep(store, path, version="2")
    assert first == again != other
    assert list(store.versions()) == sorted([first, other], key=lambda one: one.id)
    assert len(list((tmp_path / "store" / "probes").iterdir())) == 1
    # The embedded default is kept with its built-in probe, so that a newer package serves it unchanged.
    assert keep(store, DEFAULT_POLICY).probe


def test_rollbacks_go_back_one_by_one_and_everything_is_in_the_trail(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule={"kind": "fixed", "candidate": "small"})
    versions = [keep(store, path, version=str(number)) for number in range(3)]
    for version in versions:
        activate(store, version, ChangeRequest("ann", "better"))
    assert store.trail().active == {"test": versions[2].id}
    roll_back(store, "test", ChangeRequest("bob", "worse after all"))
    roll_back(store, "test", ME)
    assert store.trail().active == {"test": versions[0].id}
    with pytest.raises(VersionConflictError, match="no earlier version"):
        roll_back(store, "test", ME)
    with pytest.raises(VersionConflictError, match="active already"):
        activate(store, versions[0], ME)
    activate(store, versions[2], ME)
    roll_back(store, "test", ME)
    assert store.trail().active == {"test": versions[0].id}
    fourth = store.trail().changes[3]
    assert (fourth.number, fourth.kind, fourth.author, fourth.reason) == (
        4,
        ChangeKind.ROLLBACK,
        "bob",
        "worse after all",
    )
    assert (fourth.before, fourth.after) == (versions[2].id, versions[1].id)


def test_a_change_that_expects_another_version_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule={"kind": "fixed", "candidate": "small"})
    first, second = (keep(store, path, version=str(number)) for number in range(2))
    with pytest.raises(VersionConflictError, match="no version is"):
        activate(store, first, ChangeRequest("me", "why", expected=second.id))
    activate(store, first, ChangeRequest("me", "why", expected=""))
    for wrong in ("", second.id[:12]):
        with pytest.raises(VersionConflictError, match=first.id[:12]):
            activate(store, second, ChangeRequest("me", "why", expected=wrong))
    # Somebody else was quicker, between our look and our write.
    late = store.trail().changes[0]
    with pytest.raises(VersionConflictError):
        store.append(late)
    activate(store, second, ChangeRequest("me", "why", expected=first.id[:12]))
    assert len(store.trail().changes) == 2


@pytest.mark.parametrize(
    "wish", [("", "why"), ("me", " "), ("me", "x" * 2001), ("me", "a\x1b[2J"), ("me", "why", "abc")]
)
def test_a_change_needs_an_author_a_reason_and_a_version_that_can_be_told(wish: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        ChangeRequest(*wish)


def test_edits_are_noticed_and_a_line_that_a_crash_has_torn_is_not_one(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    first = keep(store, path)
    second = keep(store, path, version="2")
    activate(store, first, ME)
    activate(store, second, ME)
    trail = tmp_path / "store" / "trail.jsonl"
    whole = trail.read_bytes()
    trail.write_bytes(whole + b'{"kind": "acti')
    assert store.trail().active == {"test": second.id}
    roll_back(store, "test", ME)
    assert len(store.trail().changes) == 3
    for spoiled in (
        whole.replace(b"a test", b"no test", 1),
        whole[whole.index(b"\n") + 1 :],
        whole.replace(b'"number": 2', b'"number": 3'),
        b"nonsense\n",
        b"[" * 100_000 + b"\n",
    ):
        trail.write_bytes(spoiled)
        with pytest.raises(ConfigError, match="of the audit trail"):
            store.trail()
    trail.write_bytes(whole)
    file = store.open(second.id).policy
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="was changed since it was kept"):
        store.open(second.id)
    manifest = file.with_name("version.json")
    manifest.write_text(manifest.read_text("utf-8").replace('"test"', '"text"'), "utf-8")
    with pytest.raises(ConfigError, match="was changed since it was written"):
        store.versions()


def test_a_version_is_found_by_name_id_and_the_digest_of_a_record(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    first, second = keep(store, path), keep(store, path, version="2")
    activate(store, first, ME)
    assert find_version(store, "test") == first
    assert find_version(store, second.id[:12]) == find_version(store, second.policy_digest) == second
    path.write_bytes(path.read_bytes() + b"\n# the same policy in other bytes\n")
    keep(store, path)
    for unknown in ("nothing", "", "../..", second.id[:3], second.policy_digest):
        with pytest.raises(UnknownVersionError):
            find_version(store, unknown)


def test_a_store_is_its_owners_alone_and_one_that_cannot_be_made_is_a_plain_error(tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    store = DirectoryStore(tmp_path / "a" / "store")
    assert list(store.versions()) == []
    with pytest.raises(ConfigError, match="no active policy"):
        load_active(store)
    keep(store, path)
    assert (tmp_path / "a" / "store").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="must be a directory"):
        keep(DirectoryStore(path), path)


def _race(root: Path, path: Path, name: str) -> None:
    store = DirectoryStore(root)
    version = store.add(*read_contents(path))
    for _ in range(20):
        try:
            activate(store, version, ChangeRequest(name, "quicker"))
        except VersionConflictError:
            continue


def test_writers_in_several_processes_lose_no_line_and_swap_one_after_the_other(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    paths = []
    for folder in folders:
        folder.mkdir()
        rule = {"kind": "fixed", "candidate": "small"}
        paths.append(write_policy(folder, probe=None, rule=rule, version=folder.name))
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_race, args=(tmp_path / "store", path, path.parent.name)) for path in paths]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    # Reading the trail checks that each line follows from the one before.
    trail = DirectoryStore(tmp_path / "store").trail()
    assert {change.author for change in trail.changes} == set("abc")


@pytest.mark.parametrize("mode", [None, 0o755])
def test_nobody_else_reads_a_store_also_in_a_directory_that_others_may_look_into(
    store: DirectoryStore, tmp_path: Path, mode: int | None
) -> None:
    root = tmp_path / "store"
    if mode is not None:
        root.mkdir()
        root.chmod(mode)
    activate(store, keep(store, write_policy(tmp_path)), ME)
    files = [one for one in root.rglob("*") if one.is_file()]
    assert len(files) > 4
    for file in files:
        way = [file, *(parent for parent in file.parents if parent.is_relative_to(root))]
        assert any(not one.stat().st_mode & 0o077 for one in way), file


def test_an_active_version_that_is_gone_is_said_with_what_to_do(store: DirectoryStore, tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    version, other = keep(store, path), keep(store, path, version="2")
    activate(store, version, ME)
    shutil.rmtree(tmp_path / "store" / "versions" / version.id)
    for name in ("test", other.id):
        with pytest.raises(ConfigError, match="is gone from the store; restore"):
            find_version(store, name)
    with pytest.raises(ConfigError, match="is gone from the store; restore"):
        list(rows_of(store))


@pytest.mark.parametrize("name", ["../../elsewhere", "notes.txt"])
def test_a_manifest_that_names_other_files_than_those_of_a_probe_is_refused(name: str) -> None:
    probe = {name: "0" * 64}
    made = PolicyVersion(id_of("test", "1" * 64, probe), "test", "1" * 64, probe, "", "")
    with pytest.raises(ValueError, match="does not describe the version"):
        version_from(manifest_of(made), made.id)
