"""ELLE Router: decide which model answers a request, by the calibrated risk of each candidate."""

import probes  # noqa: F401 - it turns off the telemetry of libraries that are imported later
