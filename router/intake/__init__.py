"""What comes in, within bounds: requests are counted before they are decoded, and their bytes have a budget."""
