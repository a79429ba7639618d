"""Save and load probes, write their model cards for people, and sign them."""
