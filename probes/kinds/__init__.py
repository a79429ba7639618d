"""Learn the known kinds of request from groups of prompts, and say which of them a prompt is nearest to."""
