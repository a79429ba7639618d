"""The HTML report of a probe and a policy, with its charts."""
