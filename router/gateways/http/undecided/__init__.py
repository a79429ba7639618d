"""Answer requests that are not decided: embeddings, counts of tokens, and feedback on answers."""
