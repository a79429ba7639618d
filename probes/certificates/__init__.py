"""Finite-sample guarantees: bounds of a mean, tests along a path of policies, monitors, label planning."""
