"""Print what LiteLLM's Proxy needs besides LiteLLM, one requirement a line, for `pip install --requirement`.

It is the extra `proxy` of the installed LiteLLM without LiteLLM's own packages: one has a proprietary licence, and the
others hold the database's migrations and the web pages, which our tests do not use.
"""

from __future__ import annotations

from importlib.metadata import requires

from packaging.requirements import Requirement

_LEFT_OUT = ("litellm-enterprise", "litellm-proxy", "litellm-proxy-extras")


def main() -> None:
    """Print the requirements whose markers hold on this machine."""
    for line in requires("litellm") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if requirement.name in _LEFT_OUT or marker is None or marker.evaluate({"extra": ""}):
            continue
        if marker.evaluate({"extra": "proxy"}):
            requirement.marker = None
            print(requirement)


if __name__ == "__main__":
    main()
