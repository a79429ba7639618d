"""Attack a real service from loopback, within bounds, and hold each attack to its limit (`make attack`).

    python -m benchmarks.attack [--quick] [--factor 1] [--list] [NAME ...]

A table as JSON on stdout, one row per attack: what was measured, what the limits are, whether all were kept. Exit
status 1 if one was broken. NAME is an attack or a family. `--factor` widens the limits on time for a noisy machine;
those on memory, statuses and counts are not widened. `--quick` runs the attacks that their family names `QUICK`, for a
second or two each.

To add an attack, write a function in the module of its family (a new family is a new module in `families/`), and list
it in the module's `ATTACKS`, and in `QUICK` if it belongs into the default tests:

    def ten_thousand_tools(target: Target) -> Found:
        '''A request that offers ten thousand tools.'''
        return target.attacked_by(lambda: target.post(BODY))

    ATTACKS = (ten_thousand_tools,)
    QUICK = (ten_thousand_tools,)

The first line of its docstring is shown in the table. `target` has the running service (`grpc`, `http`, `pid`), helpers
that send (`post`, `call`, `connect`), and `attacked_by(action)`: it repeats the action while another caller, in a
process of its own, asks `Route` a hundred times a second, and finds how much longer that one waited (`extra_p99_ms`),
how much the service's memory grew at its height (`grown_mb`), and what the action was answered. An attack with limits
of its own returns a `Found` of its own: every key of `limits` is one of `measured`, which must not be above it.

Nothing here leaves the machine, fills a disk, or sends more than some hundred megabytes through loopback.
"""
