"""Certify: from targets and calibration outcomes to a policy file with its certificate."""
