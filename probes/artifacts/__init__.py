"""Probes on disk: saving and loading, the card for people, signatures."""
