"""Run the code of an answer and its tests, confined: the process that `sandbox` starts by the path of this file.

It imports nothing of the project. It reads a job as JSON from stdin, and writes lines of JSON to stdout, each with the
token of the job. Three processes follow each other: this one leaves the machine's namespaces, its child is the first
process of the new ones and holds the mounts, and the grandchild runs the code. The end of the second ends them all.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

_NEW_NAMESPACES = 0x10000000 | 0x40000000 | 0x20000000 | 0x00020000 | 0x08000000  # user, net, pid, mount, ipc
_NOBODY = 65534
_MS_PRIVATE_ALL, _MS_NOSUID_NODEV = 0x40000 | 0x4000, 2 | 4
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY_NOSUID = 442, -100, 0x8000, 1 | 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAP_VERSION_3, _MOST_CAPABILITIES = 0x20080522, 64
#: Folders in which other programs listen on sockets, or leave files; an empty one covers each.
_COVERED = ("/run", "/var/tmp", "/dev/shm", "/tmp")  # noqa: S108 - they are covered, not used
_SCRATCH_MB, _MOST_PROCESSES, _MOST_FILES, _MOST_FILE_BYTES = 64, 32, 64, 16 * 1024 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _nobody_reads_python() -> bool:
    """Return whether every user may read the interpreter's folders; one below /root is root's alone."""
    folders = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    return all(one.stat().st_mode & 0o1 for folder in folders for one in (folder, *folder.parents))


def _become_nobody() -> None:
    """Give up root, to which no limit on the number of processes applies."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # Otherwise /proc/self, with the maps of ids, would still belong to root.
    _call("prctl", _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def _leave_namespaces() -> None:
    """Leave the network, the processes and the mounts of the machine. Raise OSError if the system forbids it."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _libc.unshare(_NEW_NAMESPACES))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def _close_file_system() -> None:
    """Make every file read-only, cover folders with sockets, and work in an empty folder.

    A folder in which Python itself lies stays as it is: read-only, but not covered.
    """
    _call("mount", _libc.mount(b"none", b"/", None, _MS_PRIVATE_ALL, None))
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", _RDONLY_NOSUID, 0, 0, 0))
    size = ctypes.c_size_t(32)
    _call(
        "mount_setattr",
        _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, size),
    )
    options = f"size={_SCRATCH_MB}m,mode=700".encode()
    covered = [folder for folder in _COVERED if Path(folder).is_dir() and not sys.prefix.startswith(f"{folder}/")]
    for folder in covered:
        _call("mount", _libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _MS_NOSUID_NODEV, options))
    os.chdir(covered[-1])


def _give_up_capabilities() -> None:
    """Give up what the first process of a namespace may do, such as to make files writable again."""
    for capability in range(_MOST_CAPABILITIES):
        # The kernel refuses numbers beyond the last capability that it knows.
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAP_VERSION_3, 0))
    _call("capset", _libc.capset(header, ctypes.create_string_buffer(24)))
    _call("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _limit(job: dict[str, Any]) -> None:
    memory = job["memory_mb"] * 1024 * 1024
    for what, soft, hard in (
        (resource.RLIMIT_CPU, job["cpu_s"], job["cpu_s"] + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, _MOST_FILE_BYTES, _MOST_FILE_BYTES),
        (resource.RLIMIT_NOFILE, _MOST_FILES, _MOST_FILES),
        (resource.RLIMIT_NPROC, _MOST_PROCESSES, _MOST_PROCESSES),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def _say(fd: int, job: dict[str, Any], **facts: object) -> None:
    os.write(fd, (json.dumps({"token": job["token"], **facts}) + "\n").encode())


def _run(fd: int, job: dict[str, Any]) -> NoReturn:
    """Run the answer and then the tests, and say how it ended."""
    names: dict[str, Any] = {"__name__": "answer"}
    result, stage = "passed", "answer"
    try:
        exec(compile(job["answer"], "answer", "exec"), names)  # noqa: S102 - it is what the sandbox is for
        stage = "tests"
        exec(compile(job["tests"], "tests", "exec"), names)  # noqa: S102
    except BaseException as error:
        result = type(error).__name__
    _say(fd, job, result=result, stage=stage)
    os._exit(0)


def _first_of_namespace(fd: int, job: dict[str, Any], isolated: bool) -> NoReturn:
    """Prepare the mounts, run the code in a child, and say how the child ended."""
    _call("prctl", _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if isolated:
        try:
            _close_file_system()
        except OSError as error:
            _say(fd, job, refused=str(error))
            os._exit(1)
        _give_up_capabilities()
    child = os.fork()
    if child == 0:
        _limit(job)
        _run(fd, job)
    _, status = os.waitpid(child, 0)
    _say(fd, job, ended=f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "without a result")
    os._exit(0)


def run_job() -> None:
    """Read the job, confine this process, and run the job in a grandchild."""
    job = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    if os.getuid() == 0 and _nobody_reads_python():
        _become_nobody()
    isolated = True
    try:
        _leave_namespaces()
    except OSError as error:
        # Root would otherwise run the code with all of its rights.
        if job["isolation"] == "required" or os.getuid() == 0:
            _say(out, job, refused=str(error))
            return
        isolated = False
    _say(out, job, isolated=isolated)
    child = os.fork()
    if child == 0:
        _first_of_namespace(out, job, isolated)
    os.waitpid(child, 0)


if __name__ == "__main__":
    run_job()
