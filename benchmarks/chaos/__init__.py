"""Break a real service in one way after the other under steady load, and count what it has kept (`make chaos`).

    python -m benchmarks.chaos [--quick] [--factor 1] [--seconds 3] [--list] [NAME ...]

A table as JSON on stdout, one row per fault: what was measured, what the limits are, whether all were kept. Exit status
1 if one was broken. NAME is a fault. `--factor` widens the limits on time for a noisy machine; those on counts are not
widened. `--quick` runs the cheapest faults. A fault that this machine cannot have is skipped with its reason.

The parts are real: `elle serve --workers 2` with a ledger in a process of its own, gRPC clients, and an upstream on
loopback. Callers ask for decisions, for answers, and give feedback all the time, each with an id of its own. After
each fault the callers stop, and the ids that they were told are looked up in the ledger.

Feedback is acknowledged by its reply. A decision or an answer is acknowledged when feedback on it was accepted, or when
no process was killed or stopped within `GRACE_S` after the reply: `router.ledger.writer` says that a process that is
killed loses the rows of its last moment. These are counted as `lost_with_the_process`, without a limit.

To add a fault, write a function in `faults.py` or a module like it, and list it in `FAULTS`.

Nothing here leaves the machine, and disks that fill up are small ones in memory, which the bench mounts if it is root.
"""
