"""The engine's Remote on Redis: the command or script of each operation, for both transports. The ports document it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from operator import eq
from time import monotonic
from typing import Any, TypeAlias, TypeVar, cast

from redis.backoff import ExponentialWithJitterBackoff

from nearcache.engine.ports import (
    BusRefused,
    Incompatible,
    NotSent,
    Remote,
    RemoteFailed,
    RemoteMisconfigured,
    RemoteTimeout,
    TooLate,
)
from nearcache.protocol import scripts
from nearcache.protocol.answers import (
    Absent,
    Ask,
    Claim,
    Counted,
    Deleted,
    Fill,
    Held,
    Item,
    Lease,
    OutOfRange,
    Peer,
    Present,
    Reading,
    TagFloor,
    Written,
)
from nearcache.protocol.messages import pack_probe
from nearcache.protocol.names import PLACES, Names
from nearcache.protocol.records import pack_names
from nearcache.protocol.scripts import Script
from nearcache.protocol.versions import share_of
from nearcache.transport import resp
from nearcache.transport.claims import Claims
from nearcache.transport.handshake import Handshake
from nearcache.transport.interpreting import raise_odd
from nearcache.transport.port import Transport
from nearcache.transport.replies import (
    PAIR,
    VALUES,
    added_of,
    claim_of,
    counted_of,
    deleted_of,
    filled_of,
    lease_of,
    reading_of,
    touched_of,
    values_of,
    written_of,
    written_yet,
)

T = TypeVar("T")
TAG_LIFE_MARGIN_MS = 3_600_000
"""A tag's floor outlives its values by this much; when it has gone, they count as cleared."""
_FINAL = (RemoteTimeout, RemoteMisconfigured, NotSent, BusRefused, Incompatible)
"""Failures after which a command is not repeated."""
Call: TypeAlias = tuple[Sequence[bytes], Sequence[object]]
"""The names and the fields that a script is called with."""
_NOT_HERE = NotSent("it is not known that this server has the bucket")
_BYTES = frozenset({bytes})
_LATE = struct.Struct(">cQ")


class RedisRemote:
    """L2 on one Redis or Valkey server."""

    def __init__(
        self,
        transport: Transport,
        names: Names,
        *,
        retries: int,
        redis_timeout: float,
        claims: Claims | None = None,
    ) -> None:
        self.transport = transport
        self.names = names
        self._common = (names.counters, names.channel)
        """In front of the names of every script: a server of a cluster then knows all of its slot."""
        self._retries = retries
        # The sum of all pauses stays below redis_timeout.
        self._backoff = ExponentialWithJitterBackoff(cap=redis_timeout / max(retries, 1), base=redis_timeout / 16)
        self.discard_idle = transport.discard_idle
        self.close = transport.close
        self.connect = transport.connect
        self._patience = redis_timeout
        self._offset: float | None = None
        self._evalsha = True
        """Whether the server takes EVALSHA, as far as is known."""
        self.on_connected: Callable[[Peer], None] = lambda _: None
        self.seen: Callable[[], int] = lambda: 0
        self.may_repeat: Callable[[], bool] = lambda: True
        seen = lambda: self.seen()  # noqa: E731, PLW0108  # it is set later
        self.handshake = transport.handshake = Handshake(names, self._connected, seen, claims)
        self.claims = self.handshake.claims

    def _connected(self, peer: Peer) -> None:
        self._offset, self._evalsha = peer.offset, True
        self.on_connected(peer)

    def now(self) -> int:
        return 0 if self._offset is None else int((monotonic() + self._offset) * 1e6)

    async def read(self, keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Reading:
        packed = resp.pack((b"MGET", *map(self.names.value_of, map(str.encode, keys))))  # as Names.values
        count = 1
        if with_bounds:
            # They are read behind the values, so that a clear between the two makes them look old, not new.
            packed += resp.pack((b"HMGET", self.names.counters, b"s", b"f"))
            count = 2
        began = monotonic()
        try:
            replies = await self.transport.execute(packed, count, repeatable=True, waited=waited)
        except RemoteFailed as failure:
            replies = await self._again(failure, began, packed, count, repeatable=True)
        records = replies[0]
        if count == 1 and type(records) is list and len(records) == len(keys) and VALUES.issuperset(map(type, records)):
            return Reading(records)  # as nearly always; below, the same for all replies
        return self._interpreted(partial(reading_of, len(keys)), replies)

    async def read_each(
        self, asks: Sequence[tuple[Remote, Sequence[str]]]
    ) -> Sequence[Sequence[bytes | None] | RemoteFailed]:
        server = self.transport.server
        answers: list[Sequence[bytes | None] | RemoteFailed] = [_NOT_HERE] * len(asks)
        if server is None:
            return answers
        here, commands = [], []
        for at, (remote, keys) in enumerate(asks):
            one = cast("RedisRemote", remote)
            if one.transport.server is server:  # to the others its connections have not introduced this client (U)
                here.append(at)
                commands.append(resp.pack((b"MGET", *one.names.values(keys))))
        packed, began = b"".join(commands), monotonic()
        try:
            replies = await server.execute_along(packed, len(here), repeatable=True)
        except RemoteFailed as failure:
            replies = await self._again(failure, began, packed, len(here), repeatable=True, transport=server)
        try:
            for at, reply in zip(here, replies, strict=True):
                answers[at] = reply if isinstance(reply, RemoteFailed) else values_of(reply, len(asks[at][1]))
        except Exception as surprise:  # noqa: BLE001  # whatever an odd reply leads to
            raise_odd(self, surprise)
        return answers

    def tag_floors(self, tags: Sequence[str]) -> Coroutine[Any, Any, Sequence[TagFloor | None]]:
        packed = resp.pack((b"MGET", *self.names.tags(tags)))
        return self._read(lambda found: [TagFloor.parse(floor) for floor in values_of(found, len(tags))], packed, 1)

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        keys: list[str] = []
        rest: list[object] = []
        ttl_ms = stale_ms = 0
        for item in items:
            keys.append(item.key)
            rest += (item.ttl_ms, item.tail)
            ttl_ms, stale_ms = max(ttl_ms, item.ttl_ms), max(stale_ms, item.stale_ms)
        names = (*self._common, *self.names.pairs(keys, tags))
        numbers = scripts.NUMBERS_OF_SET.pack(self.seen(), ttl_ms + stale_ms + TAG_LIFE_MARGIN_MS, deadline, stale_ms)
        fields = (pack_names(keys), numbers, *rest)
        try:
            return (await self._call_all(scripts.SET, ((names, fields),), self._set_in_time))[0]
        except resp.ServerError as error:
            if error.code != "OOM":
                raise
            deleted = await self.delete(keys)
            assert deleted is not None  # noqa: S101  # without not_before it is never too early
            return deleted._replace(stored=False)

    def _set_in_time(self, reply: bytes) -> Written:
        if len(reply) > PAIR.size:
            self._offset = PAIR.unpack_from(reply)[1] / 1e6 - monotonic()  # its clock may have been set
            raise TooLate("the set came to the server after its deadline")
        return Written(*PAIR.unpack(reply))

    async def add(self, item: Item, dead: bytes, tags: Sequence[str], deadline: int) -> Written | Present | Held:
        names = [*self._common, *self.names.pairs([item.key]), *self.names.tags(tags)]
        life = item.ttl_ms + item.stale_ms + TAG_LIFE_MARGIN_MS
        fields = [pack_names([item.key]), self.seen(), life, deadline, item.stale_ms, dead, item.ttl_ms, item.tail]
        return await self._call(scripts.ADD, names, fields, lambda reply: added_of(self._in_time(reply)))

    async def touch(self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int) -> Written | Present:
        names = [*self._common, self.names.value(key), *self.names.tags(tags)]
        fields = [pack_names([key]), self.seen(), ttl_ms + TAG_LIFE_MARGIN_MS, deadline, head, ttl_ms]
        return await self._call(scripts.TOUCH, names, fields, lambda reply: touched_of(self._in_time(reply)))

    async def incr(
        self, key: str, delta: int, initial: int | None, ttl_ms: int, head: bytes, deadline: int, was: int | None = None
    ) -> Counted | Present | Absent | OutOfRange:
        names = [*self._common, *self.names.pairs([key])]
        begin, before = (b"" if number is None else number for number in (initial, was))
        fields = [pack_names([key]), self.seen(), deadline, delta, begin, ttl_ms, head, before]
        return await self._call(scripts.INCR, names, fields, lambda reply: counted_of(self._in_time(reply)))

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        names = [*self._common, *self.names.pairs(keys)]
        fields = [pack_names(keys), self.seen(), hold_ms, not_before, 0]
        return await self._call(scripts.DELETE, names, fields, partial(written_yet, not_before=not_before))

    async def delete_existing(self, key: str) -> Deleted:
        names = [*self._common, *self.names.pairs([key])]
        return await self._call(scripts.DELETE, names, [pack_names([key]), self.seen(), 0, 0, 1], deleted_of)

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        names = [*self._common, self.names.scratch, *self.names.pairs(keys)]
        return await self._call(scripts.MARK_STALE, names, [pack_names(keys), self.seen()], written_of)

    async def lease(self, asks: Sequence[Ask], lease_ms: int, tags: Sequence[str], deadline: int) -> Sequence[Lease]:
        """See Remote. No caller repeats it with the same lease_id (P)."""
        rest = [lease_ms + TAG_LIFE_MARGIN_MS, deadline, self.seen()]
        calls: list[Call] = []
        for key, lease_id, dead in asks:
            calls.append(([*self._common, *self.names.pairs((key,), tags)], [lease_id, lease_ms, dead, *rest]))
        return await self._call_all(scripts.LEASE, calls, partial(lease_of, lease_ms=lease_ms, tags=tags))

    async def fill(self, fills: Sequence[Fill]) -> Sequence[Written | None]:
        calls: list[Call] = []
        for item, lease_id, grant, tags in fills:
            names = [*self._common, *self.names.pairs((item.key,), tags)]
            life = item.ttl_ms + item.stale_ms + TAG_LIFE_MARGIN_MS
            head = [lease_id, pack_names([item.key]), grant.lease_ms, grant.number, grant.floor]
            calls.append((names, [*head, item.ttl_ms, item.tail, life, item.stale_ms, *grant.tag_floors]))
        return await self._call_all(scripts.FILL, calls, filled_of)

    async def abort(self, leases: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        calls = [([*self._common, self.names.lease(key)], [lease_id, pack_names([key])]) for key, lease_id in leases]
        return await self._call_all(scripts.ABORT, calls, partial(eq, 1))

    def claim(self, key: str) -> Coroutine[Any, Any, Claim | None]:
        name = self.names.lease(key)
        return self._read(claim_of, resp.pack((b"GET", name)) + resp.pack((b"PTTL", name)), 2)

    def _in_time(self, reply: bytes) -> bytes:
        """The answer of a script that does nothing after its deadline.

        Raises:
            TooLate: its deadline had passed.
        """
        if reply[:1] == b"L" and len(reply) == _LATE.size:
            self._offset = _LATE.unpack(reply)[1] / 1e6 - monotonic()  # its clock may have been set
            raise TooLate("it came to the server after its deadline, and nothing was done")
        return reply

    async def clear(self, *, not_before: int = 0) -> Written | None:
        names, fields = [*self._common, self.names.scratch], [b"", self.seen(), not_before]
        return await self._call(scripts.CLEAR, names, fields, partial(written_yet, not_before=not_before))

    async def invalidate_tags(self, tags: Sequence[str], *, stale: bool = False) -> Written:
        names = [*self._common, self.names.scratch, *self.names.tags(tags)]
        return await self._call(scripts.CLEAR, names, [pack_names(tags), self.seen(), 0, int(bool(stale))], written_of)

    async def l1_share(self) -> float:
        return await self._read(lambda found: share_of(*found), resp.pack((b"HMGET", self.names.counters, b"l")), 1)

    async def limit_l1(self, share: float) -> None:
        packed = resp.pack((b"HSET", self.names.counters, b"l", f"{share:g}".encode()))
        await self._read(lambda _added: None, packed, 1)

    async def announce(self, place: int, owner: bytes, document: bytes, life_ms: int) -> bool:
        name = self.names.place(place)
        free = await self._read(lambda there: not there or there.startswith(owner), resp.pack((b"GET", name)), 1)
        if free:
            packed = resp.pack((b"SET", name, document, b"PX", b"%d" % life_ms))
            await self._read(lambda _done: None, packed, 1)
        return bool(free)

    async def announced(self) -> Sequence[bytes]:
        names = [self.names.place(number) for number in range(PLACES)]
        found = await self._read(partial(values_of, count=PLACES), resp.pack((b"MGET", *names)), 1)
        return [one for one in found if one is not None]

    async def probe(self, nonce: str) -> None:
        await self._call(scripts.PROBE, [*self._common, self.names.scratch], [pack_probe(nonce)], bool)

    async def greet(self) -> None:
        fields = [self.names.protocol, self.names.database, self.seen(), int(self.claims.may(self.names))]
        await self._call(scripts.GREET, [self.names.counters, self.names.scratch], fields, bool)

    async def _read(self, interpret: Callable[..., T], packed: bytes, count: int) -> T:
        """What a function makes of the replies to commands that may be repeated."""
        began = monotonic()
        try:
            replies = await self.transport.execute(packed, count, repeatable=True)
        except RemoteFailed as failure:
            replies = await self._again(failure, began, packed, count, repeatable=True)
        return self._interpreted(interpret, replies)

    def _interpreted(self, interpret: Callable[..., T], replies: Sequence[Any]) -> T:
        for reply in replies:
            if isinstance(reply, RemoteFailed):
                raise reply
        try:
            return interpret(*replies)
        except Exception as surprise:  # noqa: BLE001  # whatever an odd reply leads to
            raise_odd(self, surprise)

    async def _again(
        self,
        failure: RemoteFailed,
        began: float,
        packed: bytes,
        count: int = 1,
        *,
        repeatable: bool = False,
        transport: Transport | None = None,
    ) -> list[Any]:
        """Repeat a failed command that is a read or was not sent: within redis_timeout in all, not after a timeout."""
        for failures in range(1, self._retries + 1):
            pause = self._backoff.compute(failures)
            late = monotonic() + pause > began + self._patience
            if late or isinstance(failure, _FINAL) or (failure.sent and not repeatable):
                break
            await self.transport.pause(pause)
            if not self.may_repeat():  # the breaker has opened meanwhile
                break
            try:
                return await (transport or self.transport).execute(packed, count, repeatable=repeatable)
            except RemoteFailed as another:
                failure = another
        raise failure

    async def _call(
        self, script: Script, names: Sequence[bytes], fields: Sequence[object], interpret: Callable[[Any], T]
    ) -> T:
        return (await self._call_all(script, ((names, fields),), interpret))[0]

    async def _call_all(
        self, script: Script, calls: Sequence[Call], interpret: Callable[[Any], T], *, by_text: bool = False
    ) -> list[T]:
        """What a function makes of each reply. Where the server has not run an EVALSHA, it is repeated ``by_text``."""
        if self.names.sharded:
            script = script.sharded
        by_text = by_text or not self._evalsha
        command = (b"EVAL", script.text) if by_text else (b"EVALSHA", script.sha)
        packed = resp.pack_call(command, *calls[0])
        if len(calls) > 1:
            packed += b"".join([resp.pack_call(command, *call) for call in calls[1:]])
        began = monotonic()
        try:
            replies = await self.transport.execute(packed, len(calls))
        except RemoteFailed as failure:
            replies = await self._again(failure, began, packed, len(calls))
        if not _BYTES.issuperset(map(type, replies)):  # seldom
            left = [at for at, one in enumerate(replies) if not by_text and self._was_not_run(one)]
            if left:
                again = await self._call_all(script, [calls[at] for at in left], lambda reply: reply, by_text=True)
                for at, reply in zip(left, again, strict=True):
                    replies[at] = reply
            for reply in replies:
                if isinstance(reply, RemoteFailed):
                    raise reply
        try:
            return list(map(interpret, replies))
        except Exception as surprise:  # noqa: BLE001  # whatever an odd reply leads to
            raise_odd(self, surprise)

    def _was_not_run(self, reply: Any) -> bool:
        """Whether the server does not know the script, or has refused EVALSHA."""
        if not isinstance(reply, resp.ServerError):
            return False
        # The right is missing, or the command was renamed: asked again on the next connection.
        self._evalsha = "'evalsha'" not in str(reply).lower()
        return not self._evalsha or reply.code == "NOSCRIPT"
