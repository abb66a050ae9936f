"""The engine's Runtime for threads and for asyncio: waiting, background work, loaders, and the end of a cache."""
