"""Reporting: what the commands print, and the HTML report with its charts."""
