"""The steps of `elle start`, which lead from a log to a certified policy that can be served."""
