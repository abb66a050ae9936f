"""What can go wrong, as one tree; each error also is the built-in a caller would expect.

    NearCacheError
     ├─ ConfigError          ValueError       a setting, a URL or a server that can never work
     ├─ InvalidKey           ValueError       not a string, empty, or over max_key_bytes
     ├─ ValueTooLarge        ValueError       encoded, it is over max_value_bytes
     ├─ CodecError           TypeError        a value that would not come back equal and of its type
     ├─ UncacheableArgument  TypeError        a call that cannot become a key
     ├─ RemoteUnavailable    ConnectionError  Redis did not acknowledge (only with on_unavailable="raise")
     ├─ LoaderTimeout        TimeoutError     nobody brought the value in time
     └─ CacheClosed          RuntimeError     used after close()

A message says what was wrong, with which value, and what to do. A loader's own exception is none of these:
it reaches the caller as it is. What goes on all the same, but only a programmer can mend, is a NearCacheWarning.
"""

from __future__ import annotations

import sys
import warnings


class NearCacheError(Exception):
    """Base of every error that nearcache raises itself.

    See docs/errors.md#nearcacheerror.
    """


class ConfigError(NearCacheError, ValueError):
    """A setting, a URL or a server that can never work.

    See docs/errors.md#configerror.
    """


class InvalidKey(NearCacheError, ValueError):
    """A key that is not a string, is empty, or is longer than ``max_key_bytes``.

    See docs/errors.md#invalidkey.
    """


class ValueTooLarge(NearCacheError, ValueError):
    """A value that, encoded, is larger than ``max_value_bytes``; nothing was stored.

    See docs/errors.md#valuetoolarge.
    """


class CodecError(NearCacheError, TypeError):
    """A value that the codec could not bring back equal and of the same type; nothing was stored.

    See docs/errors.md#codecerror.
    """


class UncacheableArgument(NearCacheError, TypeError):
    """An argument of a cached function that cannot become part of a key.

    See docs/errors.md#uncacheableargument.
    """


class RemoteUnavailable(NearCacheError, ConnectionError):
    """Redis did not acknowledge a write, and ``on_unavailable="raise"`` asked to be told so.

    See docs/errors.md#remoteunavailable.
    """


class LoaderTimeout(NearCacheError, TimeoutError):
    """No value came in time.

    See docs/errors.md#loadertimeout.
    """


class CacheClosed(NearCacheError, RuntimeError):
    """The cache was used after ``close()``.

    See docs/errors.md#cacheclosed.
    """


class NearCacheWarning(UserWarning):
    """Something works, but not as it was meant, and only a change of the program mends it; shown once per place.

    See docs/errors.md#nearcachewarning.
    """


def warn(message: str) -> None:
    """Issue a NearCacheWarning at the line outside of this package that called it.

    Python's default filter shows a text once for each such line.
    """
    depth, frame = 2, sys._getframe(1)  # noqa: SLF001  # as the warnings module itself
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, NearCacheWarning, stacklevel=depth)
