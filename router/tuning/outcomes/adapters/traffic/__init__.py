"""Import records of real traffic, as providers and proxies keep them. Their scores come from a file of their own."""
