"""Read and import outcome data, hold a part of them out, and cache their features."""
