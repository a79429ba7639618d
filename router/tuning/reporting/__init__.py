"""Write what the offline commands print, and the HTML report with its charts."""
