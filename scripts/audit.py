"""Ask the vulnerability service about every package of constraints.txt, and say which it could not be asked about.

    make audit

pip-audit calls a package that the service does not know "skipped" and ends well, also if none could be looked up. Here
that is no success: the exit status is 0 if every package was looked up and none has a known vulnerability, 1 if one
has, and 3 if the answer is not complete.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_MOST_NAMED = 5


def main() -> int:
    """Run pip-audit, print what it found, and return the exit status."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")),
        *("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "20"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"NOT AUDITED: pip-audit gave no answer. {last}")
        return 3
    text, status = verdict(packages)
    print(text)
    return status


def verdict(packages: list[dict[str, Any]]) -> tuple[str, int]:
    """Return what pip-audit's list of packages says, in words, and the exit status."""
    lines, status = [], 0
    looked_up = [one for one in packages if "skip_reason" not in one]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    for one in looked_up:
        for found in one.get("vulns", ()):
            better = ", ".join(found.get("fix_versions", ())) or "no version yet"
            lines.append(f"VULNERABLE: {one['name']} {one.get('version', '')}: {found['id']}, fixed in {better}.")
            status = 1
    if skipped or not packages:
        more = f" and {len(skipped) - _MOST_NAMED} more" if len(skipped) > _MOST_NAMED else ""
        names = ", ".join(skipped[:_MOST_NAMED])
        lines.append(
            f"NOT AUDITED: {len(skipped)} of {len(packages)} packages could not be looked up ({names}{more}). Run this "
            "on a machine that reaches the vulnerability service of PyPI."
        )
        status = status or 3
    if not status:
        lines.append(f"All {len(looked_up)} packages were looked up, and none has a known vulnerability.")
    return "\n".join(lines), status


if __name__ == "__main__":
    sys.exit(main())
