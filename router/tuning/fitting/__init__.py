"""Fitting: outcomes and features become a calibrated probe."""
