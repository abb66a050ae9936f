"""One subscribed connection for the channels of several buckets on one server.

Each bucket has a channel, which is a Bus of the engine for questions. What comes is given per channel, in the order in
which the server has sent it; between two channels no order is needed, since each bucket has numbers of its own.

Greetings that are asked before the connection waits again go together, and so do heartbeats: what is the server's is
asked once, then what is each bucket's own. Each bucket is proven by its own answer, which stands behind all messages
that came before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from nearcache.engine.breaker import ELSEWHERE
from nearcache.engine.ports import Bus, News, RemoteFailed
from nearcache.protocol.answers import BusItem
from nearcache.transport import resp
from nearcache.transport.async_transport import AsyncBus
from nearcache.transport.client import RedisRemote
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.handshake import BEAT_HEAD, GREETING_HEAD, BusProtocol, Query, refusal
from nearcache.transport.interpreting import interprets
from nearcache.transport.sync_transport import SyncBus

_BEGUN = (b"subscribe", b"ssubscribe")
_MESSAGES = (b"message", b"smessage")
_ENDED = (b"unsubscribe", b"sunsubscribe")
_GREETING_HEAD, _BEAT_HEAD = (b"".join(map(resp.pack, head)) for head in (GREETING_HEAD, BEAT_HEAD))


class Channel:
    """The channel of one bucket on a shared connection."""

    def __init__(
        self,
        remote: RedisRemote,
        protocol: SharedProtocol,
        interrupt: Callable[[], None],
    ) -> None:
        self.names = remote.names
        seen = lambda: remote.seen()  # noqa: E731, PLW0108  # it is set later
        self.questions = BusProtocol(remote.names, seen, remote.claims)
        self._protocol = protocol
        self.interrupt = interrupt
        self.beside_beat: Callable[[], None] = lambda: None
        """Called with each heartbeat."""

    async def open(self) -> None:
        """Do nothing: the connection is open."""

    async def ask_greeting(self) -> None:
        self._protocol.greeting.append(self)

    async def ask_beat(self) -> None:
        self._protocol.beating.append(self)
        self.beside_beat()

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Give nothing: what comes for all channels is received together."""
        del timeout
        return ()

    async def close(self) -> None:
        """Do nothing: other channels are on the connection."""


class SharedProtocol:
    """The conversation on a connection with several channels; questions and subscriptions are pipelined."""

    subscribe = b""
    confirmed = True
    """Nothing is subscribed when the connection is made."""

    def __init__(self) -> None:
        self._channels: dict[bytes, Channel] = {}
        self._pending: deque[tuple[deque[tuple[Channel, Query | None]], int]] = deque()
        """What was asked together: the channels that have no answer yet, each with its question (None: its
        subscription), and how many replies are for all of them."""
        self._replies: list[Any] = []
        self.greeting: list[Channel] = []
        """The channels whose greeting is to be asked."""
        self.beating: list[Channel] = []
        """The channels whose heartbeat is to be asked."""

    def join(self, channel: Channel) -> bytes:
        """The bytes that subscribe a channel."""
        names = channel.names
        self._channels[names.channel] = channel
        self._pending.append((deque(((channel, None),)), 0))
        return resp.pack((b"SSUBSCRIBE" if names.sharded else b"SUBSCRIBE", names.channel))

    def leave(self, channel: Channel) -> bytes:
        """The bytes that end the subscription of a channel; nothing if it has ended."""
        names = channel.names
        if self._channels.get(names.channel) is not channel:
            return b""
        del self._channels[names.channel]
        return resp.pack((b"SUNSUBSCRIBE" if names.sharded else b"UNSUBSCRIBE", names.channel))

    def questions(self) -> bytes:
        """The bytes of the greetings and heartbeats that are to be asked."""
        greeting, self.greeting = self.greeting, []
        beating, self.beating = self.beating, []
        packed = b""
        if greeting:
            self._pending.append((deque((one, one.questions.greeting) for one in greeting), len(GREETING_HEAD)))
            packed = _GREETING_HEAD + b"".join([channel.questions.introduction for channel in greeting])
        if beating:  # the counters that are asked for differ, the form of the answers doesn't
            beat = beating[0].questions.beat
            self._pending.append((deque((channel, beat) for channel in beating), len(BEAT_HEAD)))
            packed += _BEAT_HEAD + b"".join([channel.questions.counters for channel in beating])
        return packed

    @interprets
    def parse(self, replies: Sequence[Any]) -> list[tuple[Bus, list[News]]]:
        """What has come for each channel; a RemoteFailed among it has ended the subscription of this channel.

        Raises:
            RemoteFailed: the connection can't be used any more.
        """
        news: dict[Channel, list[News]] = {}
        for reply in replies:
            if isinstance(reply, resp.Push):
                kind, channel = reply[0], self._channels.get(reply[1])
                if kind not in _MESSAGES:
                    self._changed(reply, news)
                elif channel is not None:
                    news.setdefault(channel, []).append(reply[2])
            elif not self._pending:
                raise refusal(reply)
            else:
                self._answered(reply, news)
        return list(news.items())

    def _changed(self, push: Any, news: dict[Channel, list[News]]) -> None:
        """A subscription has begun or ended."""
        kind, channel = push[0], self._channels.get(push[1])
        if kind in _BEGUN:
            if not self._pending or self._pending[0][0][0][1] is not None:
                raise RemoteFailed("the server confirmed a subscription out of turn")
            self._pending.popleft()
        elif kind in _ENDED:
            if channel is not None:
                del self._channels[push[1]]
                news.setdefault(channel, []).append(RemoteFailed("the server ended the subscription of a bucket"))
        else:
            raise RemoteFailed(f"the server ended the subscription: {kind.decode(errors='replace')}")

    def _answered(self, reply: Any, news: dict[Channel, list[News]]) -> None:
        asked, shared = self._pending[0]
        channel, query = asked[0]
        if query is None:  # no push: the subscription was refused
            failure = refusal(reply, sharded=channel.names.sharded)
            if isinstance(reply, list):  # RESP2: it is subscribed, and what comes can't be told from answers
                raise failure
            self._pending.popleft()
            self._channels.pop(channel.names.channel, None)
            news.setdefault(channel, []).append(failure)
            return
        self._replies.append(reply)
        if len(self._replies) < query.count:
            return
        # At once, also where other channels' answers are to come: a message behind this one has a higher number.
        complete = self._replies
        asked.popleft()
        self._replies = complete[:shared] if asked else []
        if not asked:
            self._pending.popleft()
        elsewhere = (one for one in complete if isinstance(one, resp.ServerError) and one.code in ELSEWHERE)
        try:
            answer = next(elsewhere, None) or query.parse(complete)
        except RemoteFailed as failure:
            answer = failure
        news.setdefault(channel, []).append(answer)


class SyncSharedBus(SyncBus):
    """For threads."""

    _protocol: SharedProtocol  # type: ignore[assignment]  # it has all that the base uses

    def __init__(self, endpoint: Endpoint, timeout: float, remotes: Sequence[RedisRemote]) -> None:
        super().__init__(endpoint, timeout, remotes[0].names)
        self._protocol = SharedProtocol()
        self._remotes = remotes

    async def join(self, bucket: int) -> Bus:
        channel = Channel(self._remotes[bucket], self._protocol, self.interrupt)
        self._connected.send(self._protocol.join(channel))
        return channel

    async def receive(self, timeout: float) -> Sequence[Any]:
        if self._protocol.beating or self._protocol.greeting:
            self._connected.send(self._protocol.questions())
        return await super().receive(timeout)

    async def leave(self, channel: Bus) -> None:
        self._connected.send(self._protocol.leave(channel))  # type: ignore[arg-type]  # it was made here


class AsyncSharedBus(AsyncBus):
    """For asyncio."""

    _protocol: SharedProtocol  # type: ignore[assignment]  # it has all that the base uses

    def __init__(self, endpoint: Endpoint, timeout: float, remotes: Sequence[RedisRemote]) -> None:
        super().__init__(endpoint, timeout, remotes[0].names)
        self._protocol = SharedProtocol()
        self._remotes = remotes

    async def join(self, bucket: int) -> Bus:
        channel = Channel(self._remotes[bucket], self._protocol, self.interrupt)
        self._stream.send(self._protocol.join(channel))
        return channel

    async def receive(self, timeout: float) -> Sequence[Any]:
        if self._protocol.beating or self._protocol.greeting:
            self._stream.send(self._protocol.questions())
        return await super().receive(timeout)

    async def leave(self, channel: Bus) -> None:
        self._stream.send(self._protocol.leave(channel))  # type: ignore[arg-type]  # it was made here
