"""How threads and tasks run the engine: they wait, start background work and call loaders."""
