"""A call becomes a key: the same call the same key in every process, another call another key. Pure."""

from nearcache.functions.form import group_of
from nearcache.functions.key import KeyFunction, make_key_function, make_tags_function
from nearcache.functions.kinds import check_coroutine, check_plain
from nearcache.functions.naming import label_of
from nearcache.functions.text import canonical

__all__ = [
    "KeyFunction",
    "canonical",
    "check_coroutine",
    "check_plain",
    "group_of",
    "label_of",
    "make_key_function",
    "make_tags_function",
]
