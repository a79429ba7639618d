"""Ask candidates and judges within limits and a budget, and keep every answer that was paid for."""
