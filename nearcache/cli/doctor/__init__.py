"""The command `nearcache doctor`: what is wrong with a server for a cache, and what to do."""
