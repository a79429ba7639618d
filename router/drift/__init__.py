"""Notice when the traffic, or the truth of the risks, moves away from what a probe and a certificate were made for."""
