"""Fit ridge regression from sufficient statistics, and serve its predictions from frozen arrays."""
