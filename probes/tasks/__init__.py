"""Learn an offset of the loss for each task of the caller, shrunk towards the probe (empirical Bayes)."""
