"""SQLAlchemy: rows that a session changes are collected at flush, and what was made of them is deleted after commit.

The schedule that this is for: a delete before the commit lets another process load the old row again and keep it, and a
delete beside a transaction that is rolled back is for nothing. So names of keys and tags wait for the commit:

    flush       the names of each row, as it was and as it is, join those of the innermost savepoint or transaction
    release     of a savepoint: its names join those around it
    rollback    its names are forgotten
    commit      the names are deleted, after the connection is back in the pool

A process that dies between the last two leaves old values behind, until their ttl ends. ``hold`` closes that gap for
keys: they are deleted before the commit as well, and nobody's loaded value is kept for so many seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event, select
from sqlalchemy import inspect as inspected
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import InstanceState, Mapper, ORMExecuteState, Session, SessionTransaction
from sqlalchemy.util import await_only

from nearcache.aio import AsyncNearCache
from nearcache.checks import Duration, seconds
from nearcache.errors import ConfigError, RemoteUnavailable
from nearcache.policy import check_key, check_tags
from nearcache.sync import NearCache

Rule: TypeAlias = Callable[[Any], Iterable[str]]
"""From a row, as it was or as it is, to names."""


@dataclass(slots=True)
class _Names:
    keys: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def add(self, other: _Names) -> None:
        self.keys |= other.keys
        self.tags |= other.tags


def invalidate_on_commit(
    target: Any,
    cache: NearCache | AsyncNearCache,
    *,
    keys: Mapping[type, Rule] | None = None,
    tags: Mapping[type, Rule] | None = None,
    bulk: Mapping[type, Iterable[str]] | None = None,
    hold: Duration | None = None,
) -> Invalidation:
    """Delete what was made of rows when a session commits a change of them.

    Args:
        target: a sessionmaker, a scoped_session, a class of sessions or a session; or one of AsyncSession.
        cache: an AsyncNearCache only for an AsyncSession. A NearCache serves both, but blocks the event loop meanwhile.
        keys: by mapped class (subclasses included), a function from a row to keys. It is called with the row as it was
            before the flush and as it is after it, so that a changed attribute ends what both are part of.
        tags: the same for tags.
        bulk: by mapped class, the tags to invalidate when a statement writes rows that the session does not see, as
            ``session.execute(update(User))`` does.
        hold: seconds within which the commit has to be done. The keys are deleted before the commit as well, and no
            loaded value of them is kept meanwhile, so that a crash in between leaves no old value. It costs one more
            question to Redis for each transaction that changes rows.

    Returns:
        An object whose ``changed`` says whether a session has changed something, and whose ``remove`` ends all this.

    Raises:
        ConfigError: an argument can't work.
    """
    return Invalidation(_session_target(target), cache, keys or {}, tags or {}, bulk or {}, hold)


def _session_target(target: Any) -> Any:
    """What SQLAlchemy's events take: they are those of the plain sessions inside of asynchronous ones."""
    if isinstance(target, async_scoped_session):
        target = target.session_factory
    if isinstance(target, AsyncSession):
        return target.sync_session
    if isinstance(target, async_sessionmaker):
        if "sync_session_class" in target.kw:
            return target.kw["sync_session_class"]
        target = target.class_  # a class that this sessionmaker has made for itself
        if "sync_session_class" not in vars(target):  # else all asynchronous sessions of the program have the same
            target.sync_session_class = type("Session", (target.sync_session_class,), {})
    if isinstance(target, type) and issubclass(target, AsyncSession):
        return target.sync_session_class
    return target


class Invalidation:
    """What ``invalidate_on_commit`` has set up."""

    def __init__(
        self,
        target: Any,
        cache: NearCache | AsyncNearCache,
        keys: Mapping[type, Rule],
        tags: Mapping[type, Rule],
        bulk: Mapping[type, Iterable[str]],
        hold: Duration | None,
    ) -> None:
        self._cache, self._keys, self._tags = cache, keys, tags
        self._hold = None if hold is None else seconds("hold", hold)
        self._limit = cache.settings.max_key_bytes
        self._tables = {cls: _tables_of(cls) for cls in {**keys, **tags, **bulk}}
        self._bulk = {cls: set(check_tags(tuple(names), self._limit, None)) for cls, names in bulk.items()}
        self._pending: WeakKeyDictionary[Session, dict[SessionTransaction | None, _Names]] = WeakKeyDictionary()
        self._committing: WeakSet[Session] = WeakSet()
        listeners: dict[str, Callable[..., None]] = {
            "before_flush": self._before_flush,
            "after_flush": self._after_flush,
            "persistent_to_deleted": self._deleted,
            "do_orm_execute": self._statement,
            "before_commit": self._before_commit,
            "after_commit": self._after_commit,
            "after_transaction_end": self._after_end,
        }
        self._listeners = [(target, name, listener) for name, listener in listeners.items()]
        for each in self._listeners:
            event.listen(*each)

    def remove(self) -> None:
        """End it: later commits invalidate nothing."""
        for each in self._listeners:
            event.remove(*each)

    def changed(self, session: Any, key: str | None = None, tags: Iterable[str] = ()) -> bool:
        """Whether the transaction of a session has changed what a value is made of, so that a read must not be cached.

        A value that is loaded inside this transaction would show others what is not committed, and the cached value
        hides from the transaction what it has done itself: load such a value without the cache.

        Args:
            session: a session, or an AsyncSession.
            key: the key of the value.
            tags: its tags.

        Returns:
            True as well if a row of any class with a rule is changed but not flushed: its names are not known yet.
        """
        plain: Session = _session_target(session)
        if any(self._rules(row) for row in (*plain.new, *plain.dirty, *plain.deleted)):
            return True
        of_session = self._pending.get(plain, {}).values()
        wanted = set(tags)
        return any(key in names.keys or not wanted.isdisjoint(names.tags) for names in of_session)

    # ------------------------------------------------------------------------------------------- collecting

    def _rules(self, row: object) -> bool:
        return any(isinstance(row, cls) for cls in self._tables)

    def _names(self, row: object, shown: object) -> _Names:
        """What the rules of a row's class say of the row as it is shown."""
        keys = [key for cls, rule in self._keys.items() if isinstance(row, cls) for key in rule(shown)]
        tags = [tag for cls, rule in self._tags.items() if isinstance(row, cls) for tag in rule(shown)]
        return _Names({check_key(key, self._limit) for key in keys}, set(check_tags(tags, self._limit, None)))

    def _add(self, session: Session, names: _Names) -> None:
        # None: a statement may be the first of its transaction, which begins only after the event.
        transaction = session.get_nested_transaction() or session.get_transaction()
        self._pending.setdefault(session, {}).setdefault(transaction, _Names()).add(names)

    def _before_flush(self, session: Session, _context: object, _instances: object) -> None:
        """Rows as they were: only now can what was not loaded still be asked for."""
        for row in (*session.dirty, *session.deleted):
            if self._rules(row) and (row in session.deleted or session.is_modified(row)):
                self._add(session, self._names(row, _Before(session, row)))

    def _after_flush(self, session: Session, _context: object) -> None:
        """Rows as they are, with the keys that the database has given to new ones."""
        for row in (*session.new, *session.dirty):
            if self._rules(row) and (row in session.new or session.is_modified(row)):
                self._add(session, self._names(row, row))

    def _deleted(self, session: Session, row: object) -> None:
        """Rows that only the flush knew to be deleted, as orphans are."""
        if self._rules(row) and row not in session.deleted:
            self._add(session, self._names(row, row))

    def _statement(self, state: ORMExecuteState) -> None:
        if not (state.is_insert or state.is_update or state.is_delete):
            return
        table = getattr(state.statement, "table", None)
        for cls in [cls for cls, tables in self._tables.items() if table in tables]:
            if cls not in self._bulk:
                raise ConfigError(
                    f"a statement writes {table} past the session, so that the rules of {cls.__name__} can't see its "
                    f"rows: name the tags to invalidate, as in bulk={{{cls.__name__}: ['users']}}, or none by []"
                )
            self._add(state.session, _Names(set(), self._bulk[cls]))

    # --------------------------------------------------------------------------------------------- applying

    def _before_commit(self, session: Session) -> None:
        if session.get_nested_transaction() is not None:
            return
        self._committing.add(session)
        if self._hold is not None:
            session.flush()  # the commit's own flush comes only after this event
            self._apply(self._cache.delete, self._all(session).keys, hold=self._hold)

    def _after_commit(self, session: Session) -> None:
        """Of a savepoint: its names join those around it."""
        pending, savepoint = self._pending.get(session, {}), session.get_nested_transaction()
        if savepoint is None or savepoint not in pending:
            return
        outer = savepoint.parent
        while outer is not None and not outer.nested and outer.parent is not None:
            outer = outer.parent  # what a flush opens for itself
        if outer is not None:
            pending.setdefault(outer, _Names()).add(pending.pop(savepoint))

    def _after_end(self, session: Session, transaction: SessionTransaction) -> None:
        """Forget the names of what was rolled back; apply those of what was committed, now without a connection.

        A commit that fails may have been done all the same, if its answer was lost: it counts as one that was.
        """
        if transaction.parent is not None:
            self._pending.get(session, {}).pop(transaction, None)
            return
        names = self._all(session)
        self._pending.pop(session, None)
        if session in self._committing:
            self._committing.discard(session)
            self._apply(self._cache.delete, names.keys)
            self._apply(self._cache.invalidate_tags, names.tags)

    def _all(self, session: Session) -> _Names:
        names = _Names()
        for each in self._pending.get(session, {}).values():
            names.add(each)
        return names

    def _apply(self, call: Callable[..., Any], names: set[str], **options: float) -> None:
        """Ask the cache. What Redis does not acknowledge is journalled there, and no error of a commit."""
        if not names:
            return
        with suppress(RemoteUnavailable):
            answer = call(*sorted(names), **options)
            if isawaitable(answer):
                await_only(answer)


class _Before:
    """A row as it was before the flush."""

    def __init__(self, session: Session, row: object) -> None:
        self._session, self._row = session, row
        self._state: InstanceState[Any] = inspected(row, raiseerr=True)

    def __getattr__(self, name: str) -> Any:
        mapper: Mapper[Any] = self._state.mapper
        if name not in mapper.attrs:
            return getattr(self._row, name)
        old = self._state.attrs[name].history
        if name in mapper.relationships and mapper.relationships[name].uselist:
            return [*(old.unchanged or ()), *(old.deleted or ())]
        if old.deleted:
            return old.deleted[0]
        if old.added and self._state.has_identity and name in mapper.column_attrs:
            return self._asked(mapper, name)  # it was set without being loaded, as after a commit
        return getattr(self._row, name)

    def _asked(self, mapper: Mapper[Any], name: str) -> Any:
        identity = zip(mapper.primary_key, self._state.identity or (), strict=True)
        question = select(mapper.column_attrs[name].expression).where(*(column == value for column, value in identity))
        with self._session.no_autoflush:
            return self._session.execute(question).scalar()


def _tables_of(cls: type) -> frozenset[Any]:
    mapper: object = inspected(cls, raiseerr=False)
    if not isinstance(mapper, Mapper):
        raise ConfigError(f"{cls!r} is no mapped class: rules go by the classes that SQLAlchemy maps")
    return frozenset(table for each in mapper.self_and_descendants for table in each.tables)
