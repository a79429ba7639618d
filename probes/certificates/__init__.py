"""Compute finite-sample guarantees: bounds of means, certificates along a path of policies, and a monitor."""
