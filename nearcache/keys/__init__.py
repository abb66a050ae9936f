"""A call becomes a key: the same call the same key in every process, another call another key. Pure."""

from nearcache.keys.function import KeyFunction, make_key_function, make_tags_function
from nearcache.keys.kinds import check_coroutine, check_plain
from nearcache.keys.parameters import label_of
from nearcache.keys.text import canonical

__all__ = [
    "KeyFunction",
    "canonical",
    "check_coroutine",
    "check_plain",
    "label_of",
    "make_key_function",
    "make_tags_function",
]
