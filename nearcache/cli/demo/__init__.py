"""`nearcache demo`: worker processes share a cache through updates, a server outage, and a check of every answer."""
