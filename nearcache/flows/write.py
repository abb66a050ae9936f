"""Writes: one script each; acknowledged, or else the keys are misses here until the bus has been proven again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ParamSpec

from nearcache.errors import RemoteUnavailable
from nearcache.events import Journalled
from nearcache.flows.core import Core, Encoded, chunks
from nearcache.local.tier import Token
from nearcache.options import Policy
from nearcache.ports import BATCH, Item, RemoteFailed, Written, version_of

P = ParamSpec("P")


async def store(core: Core, values: Mapping[str, object], policy: Policy) -> bool:
    """Store some values everywhere; all are encoded before any is sent.

    Returns:
        Whether Redis acknowledged all of them.

    Raises:
        CodecError, ValueTooLarge: nothing was stored.
        RemoteUnavailable: not acknowledged, with ``on_unavailable="raise"``.
    """
    encoded = [one for key, value in values.items() if (one := core.encode(key, value, policy)) is not None]
    done = True
    for part in chunks(encoded, BATCH):
        done &= await _store(core, part, policy)
    return done


async def _store(core: Core, part: Sequence[Encoded], policy: Policy) -> bool:
    tokens = [core.tier.token(one.key) for one in part]
    items = [Item(one.key, one.tail, one.ttl_ms) for one in part]
    written = await _write(core, [one.key for one in part], core.remote.set, items, policy.tags)
    if written is None:
        return False
    for one, token in zip(part, tokens, strict=True):
        _put_own(core, one, token, written, policy)
    return written.stored


def _put_own(core: Core, one: Encoded, token: Token, written: Written, policy: Policy) -> None:
    if not (token.trusted and written.stored):  # an earlier write of it is unproven, and may still come after this one
        core.tier.wrote(one.key, written.version)
        return
    fresh_until = written.created + one.ttl_ms * 1000
    entry = core.entry(one.key, one.value, one.payload, written.version, fresh_until, policy)
    core.tier.put(one.key, entry, token, own=True)


async def delete(core: Core, keys: Sequence[str]) -> bool:
    """Delete some keys everywhere; whether Redis acknowledged all of them."""
    done = True
    for part in chunks(keys, BATCH):
        written = await _write(core, part, core.remote.delete, part)
        if written is None:
            done = False
            continue
        for key in part:
            core.tier.wrote(key, version_of(written.number, 0))
    return done


async def clear(core: Core) -> bool:
    """Clear the namespace everywhere; applied here before it returns (PROTOCOL.md, G)."""
    written = await _write(core, None, core.remote.clear)
    if written is not None:
        with core.tier.lock:
            core.tier.apply_clear(written.number)
    return written is not None


async def invalidate_tags(core: Core, tags: Sequence[str]) -> bool:
    """Drop everything that carries one of the tags, everywhere; applied here before it returns."""
    done = True
    for part in chunks(tags, BATCH):
        written = await _write(core, None, core.remote.invalidate_tags, part)
        if written is None:
            done = False
            continue
        with core.tier.lock:
            core.tier.apply_tags(part, written.number)
    return done


async def _write(
    core: Core,
    keys: Sequence[str] | None,
    method: Callable[P, Awaitable[Written]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> Written | None:
    """Send a write of some keys (None: of unknown many); None when it was not acknowledged.

    Any failure, a cancellation too, leaves the outcome unknown.
    """
    try:
        written = await core.ask(method, *args, **kwargs)
    except BaseException as failure:
        now = core.host.monotonic()
        if keys is None:
            core.tier.unknown_clear(now)
        else:
            core.tier.unknown(keys, now)
        core.counters.journalled += len(keys or ())
        if not isinstance(failure, RemoteFailed):
            raise
        core.emit(Journalled(len(keys or ()), str(failure)))
        if core.settings.on_unavailable == "raise":
            raise RemoteUnavailable(
                f"Redis did not acknowledge the write: {failure}; its keys are misses here until L1 is proven again"
            ) from None
        return None
    core.counters.invalidations_sent += 1
    return written
