"""Decide with a canary: a share of the requests is decided by the policy that is tried (`CanaryRouter`)."""

from __future__ import annotations

from typing import Any

from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.rollout.canary_file import CanaryFollower
from router.values import RouteQuery


class CanaryRouter(Router):
    """A router that asks a follower of a canary which policy decides a request.

    Attributes:
        follower: assigns requests to policies; None leaves all of them to the policy that they ask for.
    """

    follower: CanaryFollower | None = None

    def decide(self, query: RouteQuery, **rest: Any) -> RoutingDecision:
        """Decide a request as `Router.decide` does, by the policy of its side of the canary."""
        return super().decide(self._assigned(query), **rest)

    async def adecide(self, query: RouteQuery, **rest: Any) -> RoutingDecision:
        """Decide a request as `Router.adecide` does, by the policy of its side of the canary."""
        return await super().adecide(self._assigned(query), **rest)

    def _assigned(self, query: RouteQuery) -> RouteQuery:
        if self.follower is None:
            return query
        asked = query.overrides.policy or next(iter(self.policies))
        return self.follower.assigned(query, asked, self.policies)
