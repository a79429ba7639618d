"""Replay a log of requests through the real decisions of a policy, and price what it would have done."""
