"""Fit calibrated probes to outcomes and features."""
