"""The demo's database: a shop in SQLite, built from a seed, and the report that is worth caching.

One statement answers a report, so that it is one snapshot: the figures always belong to the revision they come with.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import TypedDict

CATEGORIES = 100
PRODUCTS = 2_000
CUSTOMERS = 12_000
ORDERS = 60_000
LINES = 240_000
ROWS = CATEGORIES + PRODUCTS + CUSTOMERS + ORDERS + LINES
SEGMENTS = ("private", "business", "school", "public")

SCHEMA = """
CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE products (id INTEGER PRIMARY KEY, category_id INTEGER NOT NULL, price_cents INTEGER NOT NULL);
CREATE TABLE customers (id INTEGER PRIMARY KEY, segment TEXT NOT NULL);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL, month TEXT NOT NULL);
CREATE TABLE lines (
    id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, product_id INTEGER NOT NULL,
    quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL
);
"""

# What any shop would have: the query is slow for what it computes, not for a missing index.
INDEXES = """
CREATE INDEX products_by_category ON products (category_id);
CREATE INDEX lines_by_product ON lines (product_id);
"""

REPORT = """
SELECT categories.name, categories.revision, orders.month, customers.segment,
       COUNT(DISTINCT orders.id), SUM(lines.quantity * lines.price_cents)
FROM categories
JOIN products ON products.category_id = categories.id
JOIN lines ON lines.product_id = products.id
JOIN orders ON orders.id = lines.order_id
JOIN customers ON customers.id = orders.customer_id
WHERE categories.id = ?
GROUP BY orders.month, customers.segment
ORDER BY orders.month, customers.segment
"""


class Report(TypedDict):
    """One category's revenue by month and customer segment."""

    category: int
    name: str
    revision: int
    revenue: Decimal
    rows: tuple[tuple[str, str, int, Decimal], ...]


def build(path: Path, seed: int) -> None:
    """Write the shop's database file; the same seed gives the same rows.

    Args:
        path: where the file is to be; it must not exist.
        seed: of the random numbers that make the rows.
    """
    # numbers by int(random() * n): several times faster than randrange, and the same on every Python
    draw = random.Random(seed).random
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # readers go on while a row changes
        connection.execute("PRAGMA synchronous = OFF")  # the file lives no longer than the demo
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO categories VALUES (?, ?, 1)", ((i, f"Category {i}") for i in range(1, CATEGORIES + 1))
        )
        prices = [100 + int(draw() * 20_000) for _ in range(PRODUCTS)]
        connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?)",
            ((i + 1, i % CATEGORIES + 1, price) for i, price in enumerate(prices)),
        )
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?)",
            ((i, SEGMENTS[int(draw() * len(SEGMENTS))]) for i in range(1, CUSTOMERS + 1)),
        )
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)",
            ((i, 1 + int(draw() * CUSTOMERS), f"2025-{1 + int(draw() * 12):02}") for i in range(1, ORDERS + 1)),
        )
        bought = (int(draw() * PRODUCTS) for _ in range(LINES))
        connection.executemany(
            "INSERT INTO lines VALUES (?, ?, ?, ?, ?)",
            (
                (i, 1 + int(draw() * ORDERS), product + 1, 1 + int(draw() * 5), prices[product])
                for i, product in enumerate(bought, 1)
            ),
        )
        connection.execute("COMMIT")
        connection.executescript(INDEXES)
        connection.execute("ANALYZE")


class Shop:
    """One process' connection to the shop's database.

    Args:
        path: the file that :func:`build` wrote.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")

    def report(self, category: int) -> Report:
        """The expensive question: a category's revenue by month and segment.

        Raises:
            LookupError: when there is no such category.
        """
        found = self._connection.execute(REPORT, (category,)).fetchall()
        if not found:
            raise LookupError(f"category {category}: not in the database; categories are 1 to {CATEGORIES}")
        rows = tuple((month, segment, orders, _money(cents)) for _, _, month, segment, orders, cents in found)
        *_, revenue = accumulate(row[3] for row in rows)
        return Report(category=category, name=found[0][0], revision=found[0][1], revenue=revenue, rows=rows)

    def change(self, category: int) -> Report:
        """Sell one piece more in a category, as a writer of the application would, and commit.

        Returns:
            The report as it is from the commit on.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.execute(
                "UPDATE lines SET quantity = quantity + 1 WHERE id = (SELECT MIN(lines.id) FROM lines "
                "JOIN products ON products.id = lines.product_id WHERE products.category_id = ?)",
                (category,),
            )
            self._connection.execute("UPDATE categories SET revision = revision + 1 WHERE id = ?", (category,))
            return self.report(category)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


def _money(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
