"""From outcomes to a calibrated probe."""
