"""Know who calls and what they may do: tokens, scopes, limits, and the certificates of both sides."""
