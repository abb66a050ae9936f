"""What is known of the bus of one bucket, which shares its connection with others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from nearcache.engine.ports import RemoteFailed
from nearcache.engine.replay import LONGEST_PAUSE
from nearcache.engine.rights import try_rights
from nearcache.engine.subscriber import BACKOFF, Subscriber
from nearcache.local.waiters import Latch


class Tried:
    """The latch of one bucket's first attempt; when all buckets have ended theirs, the one of the whole is set."""

    def __init__(self, bucket: int, missing: set[int], whole: Latch) -> None:
        self._bucket, self._missing, self._whole = bucket, missing, whole

    def set(self) -> None:
        """Note that the attempt has ended."""
        self._missing.discard(self._bucket)
        if not self._missing:
            self._whole.set()

    async def wait(self, timeout: float) -> bool:
        """Wait for all of them."""
        return await self._whole.wait(timeout)


@dataclass(slots=True, eq=False)
class BucketSubscriber(Subscriber):
    """What is known of the bus of one bucket; a line keeps it."""

    observe: Callable[[], None] = field(kw_only=True)
    """Called when its state may have changed."""
    refusals: int = 0
    """Attempts since the last proof at which the server gave no messages of the bucket on a connection that stands."""
    joined_after: float = 0.0
    """When it is subscribed again after these (monotonic)."""

    def proved(self, kept: int) -> None:
        """The bucket was proven."""
        Subscriber.proved(self, kept)
        self.refusals = 0
        self.observe()

    def end_of_attempt(self, failure: RemoteFailed) -> None:
        """The bucket was lost, or could not be subscribed."""
        Subscriber.end_of_attempt(self, failure)
        self.observe()
        self.tried.set()

    async def refused(self) -> None:
        """Leave the bucket alone for a while, as a refused bus of one server; the others on its connection go on."""
        self.refusals += 1
        pause = random.uniform(0, min(LONGEST_PAUSE, BACKOFF * 2 ** min(self.refusals, 16)))
        self.joined_after = self.core.runtime.monotonic() + pause
        if self._refused:
            await try_rights(self.core, "")
