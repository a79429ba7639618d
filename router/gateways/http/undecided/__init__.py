"""Answer requests that are not decided: embeddings, counts of tokens, kept responses, and feedback on answers."""
