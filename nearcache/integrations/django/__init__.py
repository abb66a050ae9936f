"""Django: a backend for CACHES over the process's one cache, a codec for responses, and deletes after the commit."""

from nearcache.integrations.django.backend import NearCacheBackend
from nearcache.integrations.django.codec import DjangoCodec, PickleCodec
from nearcache.integrations.django.commit import invalidate_on_commit

__all__ = ["DjangoCodec", "NearCacheBackend", "PickleCodec", "invalidate_on_commit"]
