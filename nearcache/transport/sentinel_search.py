"""What Sentinels say of the primary of a service, and which of them is believed.

They are asked one after the other, and the one that has decided is asked first the next time. One that names an older
state than was seen before (a lower config-epoch, as it stands behind a partition) is believed only where no other
answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured
from nearcache.transport import resp
from nearcache.transport.async_connection import Pipeline, connect_deadline
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.interpreting import interprets
from nearcache.transport.sync_connection import SocketConnection


@dataclass(frozen=True)
class Opinion:
    """What one Sentinel says of the service."""

    place: Endpoint
    address: tuple[str, int]
    epoch: int
    """Of the configuration: each failover has a higher one."""
    down: bool
    """Whether it holds the server at this address to be down."""
    others: int
    """Other Sentinels that it knows."""
    no_quorum: str | None
    """Why no failover can be authorised; None: one can, or this Sentinel does not say."""


@dataclass(slots=True, eq=False)
class Sentinels:
    """The Sentinels of one service, and what is known of them. All endpoints of one cache share it."""

    service: str
    places: list[Endpoint]
    """The next to be asked first."""
    timeout: float
    """Seconds that the answer of one may take."""
    least_others: int = 0
    """A Sentinel that knows fewer others is not believed: ``min_other_sentinels`` of redis-py."""
    epoch: int = 0
    """The highest that was seen."""
    primary: str | None = None
    """What they have named last."""

    @property
    def question(self) -> bytes:
        """The address; the state of all services; and whether a majority can be had.

        Behind a promotion MASTERS still has the old address, until every other replica follows the new primary.
        """
        commands = (b"GET-MASTER-ADDR-BY-NAME", self.service), (b"MASTERS",), (b"CKQUORUM", self.service)
        return b"".join(resp.pack((b"SENTINEL", *command)) for command in commands)

    def ask(self, place: Endpoint, links: dict[Endpoint, SocketConnection] | None = None) -> Opinion:
        """What one Sentinel says, from a thread that may wait.

        Args:
            place: the Sentinel.
            links: connections that are kept for the next question; None: it is closed.

        Raises:
            RemoteFailed: nothing of this service.
        """
        kept = links.pop(place, None) if links is not None else None
        connection = kept or SocketConnection(place, self.timeout)
        try:
            opinion = self._opinion(place, connection.execute(self.question, 3))
        except BaseException:
            connection.close()
            raise
        if links is None:
            connection.close()
        else:
            links[place] = connection
        return opinion

    async def ask_on_loop(self, place: Endpoint, links: dict[Endpoint, Pipeline] | None = None) -> Opinion:
        """The same for asyncio."""
        pipeline = (links.pop(place, None) if links is not None else None) or Pipeline(self.timeout)
        try:
            async with connect_deadline(place):
                if pipeline.stream.closing:  # or not connected yet
                    await pipeline.stream.connect(place)
                opinion = self._opinion(place, await pipeline.send(self.question, 3))
        except BaseException as error:
            pipeline.stream.close()
            if isinstance(error, TimeoutError):
                raise resp.translate(error) from None
            raise
        if links is None:
            pipeline.stream.close()
        else:
            links[place] = pipeline
        return opinion

    @interprets
    def _opinion(self, place: Endpoint, replies: Sequence[Any]) -> Opinion:
        address, masters, quorum = replies
        for reply in (address, masters):
            if isinstance(reply, resp.ServerError):
                raise reply.unless_final()
        known = {one["name"]: one for one in map(_fields, masters)}
        if address is None or self.service not in known:
            names = ", ".join(sorted(map(repr, known))) or "none"
            raise UnknownService(f"it watches no service {self.service!r}, but {names}; mend the name in the URL")
        host, port = (part.decode() for part in address)
        fields = known[self.service]
        down = {"s_down", "o_down"} & set(fields["flags"].split(","))
        return Opinion(
            place,
            (host, int(port)),
            int(fields["config-epoch"]),
            bool(down) and (host, port) == (fields["ip"], fields["port"]),
            int(fields["num-other-sentinels"]),
            str(quorum) if isinstance(quorum, resp.ServerError) and quorum.code == "NOQUORUM" else None,
        )

    def prefer(self, place: Endpoint) -> None:
        """Ask this Sentinel first the next time."""
        self.places = [place, *(one for one in self.places if one is not place)]

    def rotate(self) -> None:
        """Ask another Sentinel first the next time."""
        self.places = [*self.places[1:], *self.places[:1]]


class UnknownService(RemoteMisconfigured):
    """A Sentinel does not watch the service."""


class Search:
    """One search for the primary: it takes what each Sentinel said, until one decides."""

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self._stale: Opinion | None = None
        self._known = False
        """Whether one of them watches the service."""
        self._failures: list[RemoteFailed] = []
        self._reasons: dict[str, list[str]] = {}

    def take(self, opinion: Opinion) -> Opinion | None:
        """Take an opinion; the same if it decides."""
        sentinels = self._sentinels
        self._known = True
        if opinion.down:
            self.failed(opinion.place, RemoteFailed(_why_no_primary(opinion)))
        elif opinion.others < sentinels.least_others:
            self.failed(opinion.place, RemoteFailed("it knows fewer other Sentinels than min_other_sentinels"))
        elif opinion.epoch >= sentinels.epoch:
            return self._decided(opinion)
        elif self._stale is None or self._stale.epoch < opinion.epoch:
            self._stale = opinion
        return None

    def failed(self, place: Endpoint, failure: RemoteFailed) -> None:
        """Take the reason why this Sentinel names no primary."""
        self._failures.append(failure)
        self._reasons.setdefault(str(failure), []).append(name_of(place))

    def end(self) -> Opinion:
        """What counts when all were asked, and none has decided.

        Raises:
            RemoteFailed: no Sentinel names a primary. RemoteMisconfigured: none ever will.
        """
        if self._stale is not None:  # the Sentinels may have been set up anew
            return self._decided(self._stale)
        said = "; ".join(f"{', '.join(places)}: {reason}" for reason, places in self._reasons.items())
        text = f"no Sentinel names a primary of {self._sentinels.service!r}: {said}"
        mistakes = [isinstance(one, RemoteMisconfigured) for one in self._failures]
        # Those that did not answer would say what the others say.
        unknown = not self._known and any(isinstance(one, UnknownService) for one in self._failures)
        raise RemoteMisconfigured(text) if all(mistakes) or unknown else RemoteFailed(text)

    def _decided(self, opinion: Opinion) -> Opinion:
        self._sentinels.epoch, self._sentinels.primary = opinion.epoch, shown(opinion.address)
        self._sentinels.prefer(opinion.place)
        return opinion


def name_of(place: Endpoint) -> str:
    """Host and port of a Sentinel."""
    return shown((place.arguments["host"], place.arguments["port"]))


def shown(address: tuple[str, int] | None) -> str:
    """Host and port as a URL has them."""
    host, port = address or ("", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why_no_primary(opinion: Opinion) -> str:
    text = f"it holds the primary {shown(opinion.address)} to be down"
    if opinion.no_quorum is None:
        return f"{text}, and has not replaced it yet"
    return f"{text}, and can't replace it ({opinion.no_quorum}); start more Sentinels, or mend their network"


def _fields(state: Mapping[bytes, bytes] | Sequence[bytes]) -> dict[str, str]:
    """The state of a service: a map, or in RESP2 a list."""
    pairs = state.items() if isinstance(state, Mapping) else zip(state[::2], state[1::2], strict=True)
    return {name.decode(): value.decode(errors="replace") for name, value in pairs}
