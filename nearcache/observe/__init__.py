"""What watches a cache from outside: it reads ``stats()`` and ``health()``, and the cache imports nothing from here."""
