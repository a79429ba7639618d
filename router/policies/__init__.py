"""Policies: their files and certificates, which candidates may answer a request, and which one is chosen."""
