"""`nearcache demo`: a real server, a real database, several processes, and what happens when things go wrong."""
