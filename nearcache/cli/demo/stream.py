"""Which report is asked for next: few keys are hot, many are cold, as in most traffic."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate

SKEW = 1.1


def ranking(count: int, seed: int) -> list[int]:
    """The keys 1 to ``count``, hottest first; every worker of a run shares the order.

    >>> sorted(ranking(5, seed=1)) == [1, 2, 3, 4, 5]
    True
    """
    keys = list(range(1, count + 1))
    random.Random(seed).shuffle(keys)
    return keys


def zipf(ranked: Sequence[int], seed: str, skew: float = SKEW) -> Iterator[int]:
    """Draw keys for ever, the r-th of ``ranked`` with weight 1 / r ** skew.

    Args:
        ranked: the keys, hottest first.
        seed: of the draws; another one for each worker.
        skew: the exponent; 0 draws all keys alike.

    Source: G. K. Zipf, Human Behavior and the Principle of Least Effort (1949); for web traffic, Breslau et al.,
    Web Caching and Zipf-like Distributions (INFOCOM 1999).

    >>> next(zipf([7], seed="any"))
    7
    """
    cumulated = list(accumulate((rank + 1) ** -skew for rank in range(len(ranked))))
    generator = random.Random(seed)
    while True:
        yield generator.choices(ranked, cum_weights=cumulated)[0]
