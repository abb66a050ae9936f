"""`nearcache demo`: a real server, a real database and several processes, through updates and an outage."""
