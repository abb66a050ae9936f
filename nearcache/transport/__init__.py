"""Everything that speaks to Redis or Valkey; the only importer of redis and hiredis."""
