"""Finite-sample guarantees: bounds of a mean, certificates along a path of policies, a monitor, label planning."""
