"""Values of Django as bytes: responses and safe strings without pickle; and, for who asks for it by name, pickle."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from http.cookies import Morsel
from typing import Any

from django import http
from django.utils.safestring import SafeString

from nearcache.errors import CodecError
from nearcache.protocol.codec import MsgpackCodec

_SAFE, _RESPONSE = b"S", b"R"
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in vars(http).values()
    if isinstance(kind, type) and issubclass(kind, http.HttpResponse) and kind is not http.JsonResponse
}


@dataclass(frozen=True, slots=True)
class DjangoCodec(MsgpackCodec):
    """The codec of the backend: what MsgpackCodec carries, and at the top level SafeString and HttpResponse.

    Of a response it keeps what is sent: status, reason, headers, cookies and content. One of django.http keeps its
    class; any other that is rendered, such as a TemplateResponse, and a JsonResponse, come back as an HttpResponse.
    """

    def encode(self, value: object) -> bytes:
        """The value as bytes.

        Raises:
            CodecError: for a value that is not carried, a streaming response or one that is not rendered among them.
        """
        if type(value) is SafeString:
            return _SAFE + MsgpackCodec.encode(self, str.__str__(value))
        if isinstance(value, http.HttpResponse):
            return _RESPONSE + MsgpackCodec.encode(self, _packed(value))
        return MsgpackCodec.encode(self, value)

    def decode(self, data: bytes) -> Any:
        """The value that was encoded."""
        form = data[:1]
        if form == _SAFE:
            return SafeString(MsgpackCodec.decode(self, data[1:]))
        if form == _RESPONSE:
            try:
                return _unpacked(*MsgpackCodec.decode(self, data[1:]))
            except Exception as error:  # damaged fields may raise anything in the constructors
                raise CodecError(f"no response of this codec, or damaged: {error}; delete the key") from error
        return MsgpackCodec.decode(self, data)


def _packed(response: Any) -> tuple[Any, ...]:
    if not getattr(response, "is_rendered", True):
        raise CodecError(f"{response!r} is not rendered: cache it by add_post_render_callback, as cache_page does")
    kind = type(response).__name__
    cookies = [(each.key, each.value, each.coded_value, dict(each)) for each in response.cookies.values()]
    return (
        kind if _KINDS.get(kind) is type(response) else "HttpResponse",
        response.status_code,
        response._reason_phrase,  # noqa: SLF001  # None unless it was given
        response._charset,  # noqa: SLF001  # as above
        list(response.headers.items()),
        cookies,
        bytes(response.content),
    )


def _unpacked(
    kind: str,
    status: int,
    reason: str | None,
    charset: str | None,
    headers: list[tuple[str, str]],
    cookies: list[tuple[str, str, str, dict[str, Any]]],
    content: bytes,
) -> Any:
    response = _KINDS[kind].__new__(_KINDS[kind])  # the classes take other arguments, such as where to redirect to
    http.HttpResponse.__init__(response, content, status=status, reason=reason, charset=charset, headers=dict(headers))
    if "Content-Type" not in dict(headers):
        del response.headers["Content-Type"]
    for key, value, coded, attributes in cookies:
        morsel: Morsel[str] = Morsel()
        morsel.set(key, value, coded)
        morsel.update(attributes)
        response.cookies[key] = morsel
    return response


class NotPickled(CodecError, pickle.PicklingError):
    """The value can't be pickled."""


@dataclass(frozen=True, slots=True)
class PickleCodec:
    """Values of any type, by pickle: WHOEVER CAN WRITE TO REDIS CAN THEN RUN CODE IN YOUR PROCESSES.

    It is there for applications that cache objects of their own and can't change that yet. It has to be named in
    OPTIONS, and each hit unpickles a new object.
    """

    def encode(self, value: object) -> bytes:
        """The value pickled.

        Raises:
            NotPickled: it can't be.
        """
        try:
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # what __reduce__ raises, too
            raise NotPickled(f"{type(value).__name__} can't be pickled: {error}") from error

    def decode(self, data: bytes) -> Any:
        """The value unpickled.

        Raises:
            CodecError: it can't be, as when its class is gone.
        """
        try:
            return pickle.loads(data)  # noqa: S301  # as its name and its page say
        except Exception as error:  # unpickling may raise anything
            raise CodecError(f"not unpickled: {error}") from error
