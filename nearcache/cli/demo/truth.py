"""What is right: the parent's record of every commit, against which every single answer is held."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from nearcache.cli.demo.database import Report


def digest(report: Report) -> int:
    """A number for an answer's whole content, the types of its values included.

    >>> digest({"category": 1}) == digest({"category": True})
    False
    """
    return zlib.crc32(repr(report).encode())


class Version(NamedTuple):
    """One state of one report: its digest, and when its commit was over (``time.monotonic_ns()``)."""

    digest: int
    committed_ns: int


class Ledger:
    """Every state that each report has had; revisions count from 1.

    >>> ledger = Ledger()
    >>> one, two = {"category": 7, "revision": 1}, {"category": 7, "revision": 2}
    >>> ledger.committed(one, at_ns=0)
    >>> ledger.committed(two, at_ns=1_000)
    >>> ledger.staleness(7, 1, digest(one), start_ns=1_500), ledger.staleness(7, 2, digest(two), start_ns=1_500)
    (500, 0)
    >>> ledger.staleness(7, 2, digest(one), start_ns=1_500) is None
    True
    """

    def __init__(self) -> None:
        self._versions: dict[int, list[Version]] = {}

    def committed(self, report: Report, at_ns: int) -> None:
        """Note a report as it is from ``at_ns`` on; to be called before anybody can have read it and been judged."""
        self._versions.setdefault(report["category"], []).append(Version(digest(report), at_ns))

    def staleness(self, category: int, revision: int, answer: int, start_ns: int) -> int | None:
        """For how long an answer had been out of date when it was asked for.

        Args:
            category: the key.
            revision: the revision that the answer claims.
            answer: the digest of its content.
            start_ns: when the read began; what was committed later could not be known to it.

        Returns:
            Nanoseconds since the next revision's commit, 0 for an answer that was up to date, and None for a wrong
            one: content that the database never held under that revision.
        """
        versions = self._versions.get(category, [])
        if not 1 <= revision <= len(versions) or versions[revision - 1].digest != answer:
            return None
        if revision == len(versions):
            return 0
        return max(0, start_ns - versions[revision].committed_ns)


class Difference(NamedTuple):
    """An answer that is not what the database says."""

    worker: int
    category: int
    answered: Report
    database: Report


def compare(database: Callable[[int], Report], answers: Mapping[int, Iterable[Report]]) -> list[Difference]:
    """Hold the workers' answers against the database as it is now.

    Args:
        database: the uncached question.
        answers: what each worker answered; a worker may answer a key several times.

    Returns:
        The answers that differ in any value or in the type of one.
    """
    truth = {key: database(key) for key in {answer["category"] for given in answers.values() for answer in given}}
    return [
        Difference(worker, answer["category"], answer, truth[answer["category"]])
        for worker, given in answers.items()
        for answer in given
        if repr(answer) != repr(truth[answer["category"]])
    ]
