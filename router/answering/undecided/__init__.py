"""Ask one candidate once for what is not decided: counts of tokens, embeddings, and responses that it keeps."""
