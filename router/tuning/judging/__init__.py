"""How well a probe ranks prompts on data that it has not seen, beside baselines."""
