"""Keep incoming requests within bounds: they are counted before they are decoded, and their bytes have a budget."""
