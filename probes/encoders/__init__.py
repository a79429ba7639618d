"""From text to features: which encoder, where its files are, and the runtimes that compute it."""
