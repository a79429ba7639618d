"""Tests of the checks of `elle doctor`."""
