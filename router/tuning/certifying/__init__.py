"""Turn targets and calibration outcomes into a policy file with a certificate."""
