"""Rows that a session of SQLAlchemy changes: what was made of them is deleted after the commit, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, ForeignKey, create_engine, delete, event, insert, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import StaticPool

from nearcache import AsyncNearCache, ConfigError, InvalidKey, NearCache
from nearcache.integrations.sqlalchemy import Invalidation, invalidate_on_commit
from nearcache.testing import FakeServer
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import until


class Base(DeclarativeBase):
    """The tables of these tests."""


class Team(Base):
    """Some users."""

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[list[Note]] = relationship(cascade="all, delete-orphan")
    users: Mapped[list[User]] = relationship(back_populates="team", cascade="all, delete-orphan")


class Note(Base):
    """One of a team, which it does not know."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("team.id"))


class User(Base):
    """One of a team, with a name that no other has."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id"))
    team: Mapped[Team | None] = relationship(back_populates="users")


KEYS: dict[type, Any] = {User: lambda user: [f"user:{user.id}"]}
TAGS: dict[type, Any] = {User: lambda user: [f"team:{user.team_id}"], Team: lambda team: [f"team:{team.id}"]}
BULK: dict[type, Any] = {User: ["users"]}


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A database in memory, on one connection, with savepoints that work."""
    own = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    _mend_savepoints(own)
    Base.metadata.create_all(own)
    with Session(own) as session, session.begin():
        session.add_all([Team(id=1), Team(id=2)])
        session.add_all([User(id=7, name="Ada", team_id=1), User(id=8, name="Grace", team_id=1)])
    yield own
    own.dispose()


def _mend_savepoints(engine: Engine) -> None:
    """As SQLAlchemy's documentation of the sqlite3 driver says."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")


class Shop:
    """A session of its own kind, and what the cache has left of the names that matter here."""

    def __init__(self, engine: Engine, cache: NearCache) -> None:
        self.cache = cache
        self.sessions = sessionmaker(engine)
        self.invalidation = self.watch()
        self.fill()

    def watch(self, **options: Any) -> Invalidation:
        """Set it up on the sessions of this shop."""
        return invalidate_on_commit(self.sessions, self.cache, **{"keys": KEYS, "tags": TAGS, "bulk": BULK, **options})

    def fill(self) -> None:
        """Cache a value for each name."""
        values = {"user:7": "A", "user:8": "G", "user:9": "N"}
        assert self.cache.set_many(values)
        for team in ("team:1", "team:2", "users"):
            assert self.cache.set(team, "T", tags=[team])

    @property
    def gone(self) -> set[str]:
        """The names whose values are deleted."""
        names = ["user:7", "user:8", "user:9", "team:1", "team:2", "users"]
        return set(names) - set(self.cache.get_many(names))


@pytest.fixture
def shop(engine: Engine, cache: NearCache) -> Shop:
    """With two teams, and two users in the first."""
    return Shop(engine, cache)


def test_a_change_is_invalidated_after_the_commit_and_not_before(shop: Shop) -> None:
    """By keys and tags, of the row as it was and as it is."""
    with shop.sessions() as session:
        user = session.get_one(User, 7)
        user.team_id = 2
        session.flush()
        assert shop.gone == set()
        session.commit()
        assert shop.gone == {"user:7", "team:1", "team:2"}


def test_what_was_committed_is_what_the_next_reader_loads(shop: Shop, engine: Engine) -> None:
    """The cache is asked when the database has the new row."""
    heard: list[str] = []
    event.listen(engine, "commit", lambda _: heard.append("committed"))
    deleted = shop.cache.delete
    shop.cache.delete = lambda *keys, **options: heard.append("deleted") or deleted(*keys, **options)  # type: ignore[func-returns-value, method-assign]
    with shop.sessions.begin() as session:
        session.get_one(User, 7).name = "Edsger"
    assert heard == ["committed", "deleted"]


def test_the_old_value_of_an_attribute_that_was_not_loaded_is_asked_for(shop: Shop) -> None:
    """After a commit attributes are expired, and setting one does not load it."""
    with shop.sessions() as session:
        user = session.get_one(User, 7)
        session.commit()
        assert shop.gone == set()
        user.team_id = 2
        session.commit()
    assert shop.gone == {"user:7", "team:1", "team:2"}


def test_new_and_deleted_rows(shop: Shop) -> None:
    """A new one has its key from the database; an orphan is deleted by the flush alone."""
    with shop.sessions.begin() as session:
        session.add(User(name="Barbara", team_id=2))
    assert shop.gone == {"user:9", "team:2"}
    shop.fill()
    with shop.sessions.begin() as session:
        session.delete(session.get_one(User, 8))
    assert shop.gone == {"user:8", "team:1"}
    shop.fill()
    with shop.sessions.begin() as session:
        team = session.get_one(Team, 1)
        team.users.remove(team.users[0])
    assert shop.gone >= {"user:7", "team:1"}
    assert "user:9" not in shop.gone


def test_an_orphan_that_only_the_flush_knows(shop: Shop) -> None:
    """Nothing of its own has changed."""
    shop.watch(keys={Note: lambda note: [f"user:{note.id}"]}, tags={})
    with shop.sessions.begin() as session:
        team = session.get_one(Team, 2)
        team.notes.append(Note(id=9))
    shop.fill()
    with shop.sessions.begin() as session:
        team = session.get_one(Team, 2)
        team.notes.clear()
    assert shop.gone == {"user:9", "team:2"}


def test_a_cascade_counts(shop: Shop) -> None:
    """The users of a deleted team."""
    with shop.sessions.begin() as session:
        session.delete(session.get_one(Team, 1))
    assert shop.gone == {"user:7", "user:8", "team:1"}


def test_nothing_is_invalidated_by_a_rollback(shop: Shop) -> None:
    """Nor by a session that is closed before its commit, nor by an attribute set to what it was."""
    with shop.sessions() as session:
        session.get_one(User, 7).name = "Edsger"
        session.flush()
        session.rollback()
        session.get_one(User, 7).name = "Edsger"
        session.flush()
    with shop.sessions.begin() as session:
        session.get_one(User, 7).name = "Ada"
        session.get_one(User, 8)
    assert shop.gone == set()


def test_a_savepoint_keeps_its_names_to_itself(shop: Shop) -> None:
    """They are forgotten with it, or join those around it; at any depth."""
    with shop.sessions.begin() as session:
        session.get_one(User, 7).name = "Edsger"
        session.flush()
        savepoint = session.begin_nested()
        session.get_one(User, 8).name = "Barbara"
        session.flush()
        with session.begin_nested():
            session.add(User(id=9, name="Frances", team_id=2))
        savepoint.rollback()
    assert shop.gone == {"user:7", "team:1"}
    shop.fill()
    with shop.sessions.begin() as session, session.begin_nested():
        session.get_one(User, 8).name = "Barbara"
        with session.begin_nested():
            session.add(User(id=9, name="Frances", team_id=2))
        assert shop.gone == set()
    assert shop.gone == {"user:8", "user:9", "team:1", "team:2"}


def test_a_session_serves_one_transaction_after_the_other(shop: Shop) -> None:
    """What one has rolled back is not part of the next."""
    with shop.sessions() as session:
        session.add(User(id=9, name="Ada", team_id=2))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        session.get_one(User, 7).name = "Edsger"
        session.commit()
    assert shop.gone == {"user:7", "team:1"}


def test_a_commit_whose_answer_is_lost_counts_as_done(shop: Shop, engine: Engine) -> None:
    """The database may have done it."""

    def lose(_connection: Connection) -> None:
        raise OperationalError("COMMIT", {}, ConnectionError("lost"))

    with shop.sessions() as session:
        session.get_one(User, 7).name = "Edsger"
        event.listen(engine, "commit", lose)
        with pytest.raises(OperationalError):
            session.commit()
        session.rollback()
        event.remove(engine, "commit", lose)
    assert shop.gone == {"user:7", "team:1"}


@pytest.mark.parametrize(
    "statement",
    [
        update(User).values(name="X").where(User.id == 7),
        delete(User),
        insert(User),
        update(User.__table__).values(team_id=2),  # type: ignore[arg-type]
    ],
)
def test_a_statement_that_writes_rows_invalidates_the_tags_of_bulk(shop: Shop, statement: Any) -> None:
    """After the commit, and not after a rollback."""
    parameters = [{"name": "Barbara"}] if statement.is_insert else None
    with shop.sessions() as session:
        session.execute(statement, parameters)
        session.rollback()
        assert shop.gone == set()
        session.execute(statement, parameters)
        session.commit()
    assert shop.gone == {"users"}


def test_a_statement_without_tags_of_bulk_is_refused(shop: Shop) -> None:
    """Before it is executed: its rows would stay in the cache. Tables without rules are nobody's business."""
    with shop.sessions() as session:
        with pytest.raises(ConfigError, match=r"bulk=\{Team: \['users'\]\}"):
            session.execute(delete(Team))
        session.execute(text("DELETE FROM team"))
        session.rollback()
        assert session.get(Team, 1) is not None


def test_a_read_of_what_the_transaction_has_changed(shop: Shop) -> None:
    """It is told, by key and by tag, until the commit."""
    changed = shop.invalidation.changed
    with shop.sessions() as session:
        user = session.get_one(User, 7)
        assert not changed(session, "user:7", ["team:1"])
        user.name = "Edsger"
        assert changed(session, "user:8")  # not flushed yet, so nobody knows
        session.flush()
        assert changed(session, "user:7")
        assert changed(session, "x", ["team:1"])
        assert not changed(session, "user:8", ["team:2"])
        session.commit()
        assert not changed(session, "user:7", ["team:1"])


def test_what_can_never_work_is_refused(shop: Shop) -> None:
    """When it is set up, or at the flush, and so before the commit."""
    with pytest.raises(ConfigError, match="no mapped class"):
        invalidate_on_commit(shop.sessions, shop.cache, keys={int: str})
    with pytest.raises(ConfigError, match="hold"):
        invalidate_on_commit(shop.sessions, shop.cache, hold=-1)
    wrong = shop.watch(keys={User: lambda _: [""]})
    with shop.sessions() as session:
        session.get_one(User, 7).name = "Edsger"
        with pytest.raises(InvalidKey):
            session.commit()
        session.rollback()
    wrong.remove()
    shop.fill()
    shop.invalidation.remove()
    with shop.sessions.begin() as session:
        session.get_one(User, 7).name = "Edsger"
    assert shop.gone == set()


def test_a_cache_that_is_away_does_not_fail_a_commit(engine: Engine) -> None:
    """The delete is journalled, and replayed."""
    fake = FakeServer()
    with fake.cache(on_unavailable="raise") as cache:
        shop = Shop(engine, cache)
        with fake.away(), shop.sessions.begin() as session:
            session.get_one(User, 7).name = "Edsger"
        fake.settle()
        assert shop.gone == {"user:7", "team:1"}


@pytest.mark.parametrize("target", [Session, scoped_session, "class"])
def test_every_kind_of_session_is_taken(target: Any, engine: Engine, cache: NearCache) -> None:
    """A session, a scoped session, a class of sessions."""

    class Own(Session):
        pass

    taken: Any = {"class": Own, Session: Session(engine)}.get(target) or scoped_session(sessionmaker(engine))
    invalidation = invalidate_on_commit(taken, cache, keys=KEYS)
    cache.set("user:7", "A")
    session = Own(engine) if target == "class" else taken
    session.get_one(User, 7).name = "Edsger"
    session.commit()
    session.close()
    assert cache.get("user:7") is None
    invalidation.remove()


# ------------------------------------------------------------------------------------------------------ asyncio


KINDS: dict[str, Callable[[Any], tuple[Any, Callable[[], AsyncSession]]]] = {
    "maker": lambda engine: (maker := async_sessionmaker(engine), maker),
    "maker of a sync class": lambda engine: (
        maker := async_sessionmaker(engine, sync_session_class=type("Own", (Session,), {})),
        maker,
    ),
    "session": lambda engine: (session := AsyncSession(engine), lambda: session),
    "class": lambda engine: (
        own := type("Own", (AsyncSession,), {"sync_session_class": type("Own", (Session,), {})}),
        lambda: own(engine),
    ),
    "scoped": lambda engine: (
        scoped := async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1),
        scoped.__call__,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [NearCache, AsyncNearCache])
async def test_an_async_session(kind: str, make: Any, valkey: EmbeddedServer, namespace: str, tmp_path: Path) -> None:
    """Of every kind, with either class of cache; and other sessions are left alone."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    plain = NearCache.from_url(valkey.url, namespace=namespace)
    cache = make.from_url(valkey.url, namespace=namespace)
    target, sessions = KINDS[kind](engine)
    invalidation = invalidate_on_commit(target, cache, keys=KEYS, hold=1)
    for ours in (True, False):
        plain.set("user:1", "A")
        async with sessions() if ours else AsyncSession(engine) as session:
            session.add(User(id=1 + (not ours), name=f"Ada {ours}"))
            await session.flush()
            assert plain.get("user:1") == "A"
            assert invalidation.changed(session, "user:1") is ours
            await session.commit()
        if ours:  # its message is on its way
            await until(lambda: plain.get("user:1") is None)
        assert plain.get("user:1") == (None if ours else "A")
    invalidation.remove()
    plain.close()
    if make is AsyncNearCache:
        await cache.close()
    else:
        cache.close()
    await engine.dispose()


# --------------------------------------------------------------------------------------------------------- hold


KILLED = """
import os, sys
from sqlalchemy import create_engine, event
from sqlalchemy.orm import sessionmaker
from nearcache import NearCache
from nearcache.integrations.sqlalchemy import invalidate_on_commit
from tests.integrations.test_sqlalchemy import KEYS, User

database, url, namespace, hold = sys.argv[1:]
sessions = sessionmaker(create_engine(database))
cache = NearCache.from_url(url, namespace=namespace)
assert cache.wait_healthy(5)
invalidate_on_commit(sessions, cache, keys=KEYS, hold=float(hold) or None)
event.listen(sessions, "after_commit", lambda session: os._exit(9))
with sessions.begin() as session:
    session.get_one(User, 7).name = "Edsger"
"""


@pytest.mark.parametrize("hold", [0.0, 2.0])
def test_a_process_that_dies_between_commit_and_delete(
    hold: float, valkey: EmbeddedServer, namespace: str, cache: NearCache, tmp_path: Path
) -> None:
    """Without hold the old value stays; with it, it was deleted before the commit."""
    database = f"sqlite:///{tmp_path / 'db'}"
    engine = create_engine(database)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(User(id=7, name="Ada"))

    def name() -> str:
        with Session(engine) as session:
            return session.get_one(User, 7).name

    assert cache.get_or_set("user:7", name) == "Ada"
    child = [sys.executable, "-W", "error", "-c", KILLED, database, valkey.url, namespace, str(hold)]
    root = Path(__file__).parents[2]
    done = subprocess.run(child, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, check=False, timeout=60)
    assert done.returncode == 9
    assert name() == "Edsger"
    with NearCache.from_url(valkey.url, namespace=namespace) as other:
        assert other.get_or_set("user:7", name) == ("Edsger" if hold else "Ada")
    engine.dispose()


def test_what_a_reader_loads_before_the_commit_is_not_kept(cache: NearCache, engine: Engine, shop: Shop) -> None:
    """While the hold lasts: the process could die before its second delete."""
    shop.invalidation.remove()
    shop.watch(hold=30)
    kept: list[Any] = []

    def read_meanwhile(_connection: Connection) -> None:
        kept.append(cache.get_or_set("user:7", lambda: "old"))
        kept.append(cache.get("user:7"))

    event.listen(engine, "commit", read_meanwhile)
    with shop.sessions.begin() as session:
        session.get_one(User, 7).name = "Edsger"  # flushed by the commit alone
    assert kept == ["old", None]
    with shop.sessions.begin() as session:  # nothing changes: no hold
        session.get_one(User, 8)
    assert cache.get_or_set("user:8", lambda: "new") == "G"
