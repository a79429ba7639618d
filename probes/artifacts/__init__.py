"""Keep probes on disk: save and load them, write the card for people, sign them."""
