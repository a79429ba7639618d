"""ELLE Router: decide which model answers, by calibrated risk instead of guesswork."""
