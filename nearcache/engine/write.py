"""Writes: one script each; acknowledged, or else journalled, to be replayed as deletes when Redis answers again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias

from nearcache.engine import alone
from nearcache.engine.core import Core, chunks
from nearcache.engine.entries import Encoded
from nearcache.engine.ports import NotSent, Remote, RemoteFailed
from nearcache.engine.read import fetch
from nearcache.engine.requests import Operation
from nearcache.errors import RemoteUnavailable
from nearcache.events import Journalled
from nearcache.local.snapshot import Snapshot
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH, Written
from nearcache.protocol.records import fresh_until_of
from nearcache.protocol.versions import version_of

_KEY = attrgetter("key")
Answer: TypeAlias = Awaitable[Written | None]


async def store_one(core: Core, key: str, value: object, policy: Policy) -> bool:
    """As ``store`` for one value."""
    encoded = core.entries.encode(key, value, policy)
    if encoded is None:  # what negative_ttl or the condition turns down is not what was there, either
        failed = await _drop(core, Operation.DELETE, (key,), _delete, 0)
    else:
        failed = await _store_part(core.of(key) if core.parts else core, (encoded,), policy)
    return failed is None or _acknowledged(core, failed)


async def store(core: Core, values: Mapping[str, object], policy: Policy) -> bool:
    """Store some values everywhere; all are encoded before any is sent.

    Returns:
        Whether Redis acknowledged all of them.

    Raises:
        CodecError, ValueTooLarge: nothing was stored.
        RemoteUnavailable: not acknowledged, with ``on_unavailable="raise"``.
    """
    encoded: list[Encoded] = []
    turned_down: list[str] = []
    for key, value in values.items():
        one = core.entries.encode(key, value, policy)
        if one is None:
            turned_down.append(key)
        else:
            encoded.append(one)
    failed: RemoteFailed | None = None
    if core.parts:
        items = {one.key: one for one in encoded}
        works = [_store(part, [items[key] for key in keys], policy) for part, keys in core.split(items)]
        failed = await _together(core, works)
    else:
        failed = await _store(core, encoded, policy)
    if turned_down:  # as of one
        failed = await _drop(core, Operation.DELETE, turned_down, _delete, 0) or failed
    return failed is None or _acknowledged(core, failed)


async def _together(core: Core, works: Sequence[Coroutine[Any, Any, RemoteFailed | None]]) -> RemoteFailed | None:
    """Write to several buckets; why one of them did not acknowledge, if any."""
    if len(works) == 1:
        return await works[0]
    with core.as_one():
        results = await core.runtime.together(works)
    return next((failed for failed in reversed(results) if failed is not None), None)


def _delete(remote: Remote, keys: Sequence[str]) -> Answer:
    return remote.delete(keys)


async def _store(core: Core, encoded: Sequence[Encoded], policy: Policy) -> RemoteFailed | None:
    failed: RemoteFailed | None = None
    for part in chunks(encoded, BATCH):
        failed = await _store_part(core, part, policy) or failed
    return failed


async def _store_part(core: Core, part: Sequence[Encoded], policy: Policy) -> RemoteFailed | None:
    keys = list(map(_KEY, part))
    snapshots = core.tier.snapshots(keys) if len(keys) > 1 else [core.tier.snapshot(keys[0])]
    if core.requests.denied is not None:
        return NotSent(core.requests.denied)
    requests, remote, deadline = core.requests, core.remote, 0
    try:
        if not remote.now():
            await requests.ask(Operation.SET, remote.connect)
        deadline, breaker = requests.deadline(), requests.breaker
        if requests.bypassed or not breaker.sends:  # as Requests.ask, which is one more coroutine
            requests.permit()
        try:
            written = await remote.set(part, policy.tags, deadline)
        except RemoteFailed as failure:
            requests.failed(failure, Operation.SET, len(keys))
            raise
        if breaker.failures or breaker.refused or not breaker.sends:
            requests.answered(Operation.SET, written)
    except BaseException as failure:
        unsent = isinstance(failure, RemoteFailed) and not failure.sent
        core.tier.journal_keys(keys, not_before=0 if unsent else deadline)
        _report(core, failure, len(keys))
        if not isinstance(failure, RemoteFailed):
            raise
        return failure
    requests.wrote(written)
    if not written.stored:
        return _not_stored(core, written, zip(keys, snapshots, strict=True))
    for one, snapshot in zip(part, snapshots, strict=True):
        core.tier.put(one.key, core.entries.of_write(one, written, policy), snapshot, own=True)
    return None


def _not_stored(core: Core, written: Written, keys: Iterable[tuple[str, Snapshot]]) -> RemoteFailed:
    for key, snapshot in keys:
        core.tier.wrote(key, written.version, snapshot.epoch)
    full = RemoteFailed("its memory is full; the keys were deleted instead")
    full.code = "OOM"
    core.counters.failed(full.code)
    core.requests.refuse(Operation.SET, full)
    return full


async def delete(core: Core, keys: Sequence[str], hold_ms: int = 0) -> bool:
    """Delete some keys everywhere, and hold them for ``hold_ms``; whether Redis acknowledged all of them."""

    def send(remote: Remote, part: Sequence[str]) -> Answer:
        return remote.delete(part, hold_ms=hold_ms)

    return _acknowledged(core, await _drop(core, Operation.DELETE, keys, send, hold_ms))


async def remove(core: Core, keys: Sequence[str]) -> bool:
    """As ``delete`` for a load, whose caller is told of no failure."""
    return await _drop(core, Operation.DELETE, keys, _delete, 0) is None


async def delete_existing(core: Core, key: str) -> bool:
    """As ``delete`` for one key; whether Redis acknowledged, and a living value was there."""
    if core.alone:
        return await alone.delete_existing(core, key)
    if core.parts:
        core = core.of(key)
    found, head = await fetch(core, key, core.policy), b""

    async def send(remote: Remote, keys: Sequence[str]) -> Written:
        nonlocal head
        written, head = await remote.delete_existing(keys[0])
        return written

    failed = await _drop(core, Operation.DELETE, [key], send, 0)
    # What others have written since it was read was alive, unless they have marked it stale.
    alive = found.alive if head == found.head else fresh_until_of(head) > core.requests.server_now()
    return _acknowledged(core, failed) and bool(head) and alive


async def mark_stale(core: Core, keys: Sequence[str]) -> bool:
    """Make some values dead everywhere, so that the next read loads; whether Redis acknowledged all of them."""

    def send(remote: Remote, part: Sequence[str]) -> Answer:
        return remote.mark_stale(part)

    return _acknowledged(core, await _drop(core, Operation.MARK_STALE, keys, send, 0))


async def _drop(
    core: Core,
    operation: Operation,
    keys: Sequence[str],
    method: Callable[[Remote, Sequence[str]], Answer],
    hold_ms: int,
) -> RemoteFailed | None:
    failed: RemoteFailed | None = None
    if core.parts:
        works = [_drop(one, operation, some, method, hold_ms) for one, some in core.split(keys)]
        return await _together(core, works)
    for part in chunks(keys, BATCH):
        epoch, journal = core.tier.epoch, partial(core.tier.journal_keys, part, hold_ms=hold_ms)
        written = await _write(core, operation, partial(method, core.remote, part), journal, len(part))
        if isinstance(written, RemoteFailed):
            failed = written
            continue
        for key in part:
            core.tier.wrote(key, version_of(written.number, 0), epoch)
    return failed


async def clear(core: Core) -> bool:
    """Clear the namespace everywhere; applied here before it returns (docs/protocol.md, G).

    Each bucket that has acknowledged is cleared here at once; each that has not is journalled (X).
    """
    return _acknowledged(core, await _in_each(core, _clear))


async def _in_each(core: Core, work: Callable[[Core], Coroutine[Any, Any, RemoteFailed | None]]) -> RemoteFailed | None:
    if not core.parts:
        return await work(core)
    return await _together(core, [work(one) for one in core.parts])


async def _clear(core: Core) -> RemoteFailed | None:
    written = await _write(core, Operation.CLEAR, core.remote.clear, partial(core.tier.journal_floors, ()), 0)
    if isinstance(written, RemoteFailed):
        return written
    core.tier.raised_floors((), written.number, core.runtime.monotonic())
    return None


async def drop_local(core: Core) -> None:
    """Drop every entry of this process."""
    with core.tier.lock:
        core.tier.drop_all()


async def invalidate_tags(core: Core, tags: Sequence[str], *, stale: bool = False) -> bool:
    """Drop everything that carries one of the tags, or make it stale, everywhere; applied here before it returns.

    A tag has a floor in each bucket.
    """
    return _acknowledged(core, await _in_each(core, partial(_invalidate_tags, tags=tags, stale=stale)))


async def _invalidate_tags(core: Core, tags: Sequence[str], *, stale: bool) -> RemoteFailed | None:
    failed: RemoteFailed | None = None
    for part in chunks(tags, BATCH):
        send = partial(core.remote.invalidate_tags, part, stale=stale)
        journal = partial(core.tier.journal_floors, part)  # replayed as one that leaves nothing, as mark_stale is
        written = await _write(core, Operation.INVALIDATE_TAGS, send, journal, 0)
        if isinstance(written, RemoteFailed):
            failed = written
            continue
        core.tier.raised_floors(part, written.number, core.runtime.monotonic(), stale=stale)
    return failed


async def _write(
    core: Core, operation: Operation, send: Callable[[], Answer], journal: Callable[[], None], keys: int
) -> Written | RemoteFailed:
    """Send a write; the failure if Redis did not acknowledge it, after it was journalled.

    Any failure, a cancellation too, leaves the outcome unknown; what is none of Redis' is raised.
    """
    if core.requests.denied is not None:  # nothing to be replayed: it would be refused as well
        return NotSent(core.requests.denied)
    try:
        written = await core.requests.ask(operation, send)
        assert written is not None  # noqa: S101  # only a replay can be too early
    except BaseException as failure:
        journal()
        _report(core, failure, keys)
        if not isinstance(failure, RemoteFailed):
            raise
        return failure
    core.requests.wrote(written)
    return written


def _report(core: Core, failure: BaseException, keys: int) -> None:
    """Report that a write of so many keys was journalled."""
    core.counters.journalled += keys
    if isinstance(failure, RemoteFailed):
        core.emit(Journalled(keys, str(failure)))


def _acknowledged(core: Core, failed: RemoteFailed | None) -> bool:
    """The result of a write for its caller.

    Raises:
        RemoteUnavailable: something failed, with ``on_unavailable="raise"``.
    """
    if failed is not None and core.settings.on_unavailable == "raise":
        raise RemoteUnavailable(
            f"Redis did not acknowledge the write: {failed}; it is journalled, and replayed as a delete when Redis "
            "answers again; its keys are misses here until then"
        )
    return failed is None
