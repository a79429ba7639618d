"""ELLE Router: decide which model answers, by calibrated risk instead of guesswork."""

import probes  # noqa: F401 - turns off the telemetry of what is imported after it
