"""The database of the demo: a shop in SQLite, built from a seed, and the expensive query that is cached."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

CATEGORIES, PRODUCTS, ORDERS, LINES = 100, 2_000, 25_000, 100_000
ROWS = CATEGORIES + PRODUCTS + ORDERS + LINES
SEGMENTS = ("private", "business", "school", "public")
SCHEMA = """
CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT, revision INTEGER);
CREATE TABLE products (id INTEGER PRIMARY KEY, category_id INTEGER, price_cents INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, month TEXT, segment TEXT);
CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER, product_id INTEGER, quantity INTEGER, cents INTEGER);
CREATE INDEX products_by_category ON products (category_id);
CREATE INDEX lines_by_product ON lines (product_id);
"""
# One statement, so that a report is one snapshot: its figures belong to its revision.
REPORT = """
SELECT name, revision, month, segment, COUNT(DISTINCT orders.id), SUM(lines.quantity * lines.cents)
FROM categories
JOIN products ON products.category_id = categories.id
JOIN lines ON lines.product_id = products.id
JOIN orders ON orders.id = lines.order_id
WHERE categories.id = ? GROUP BY month, segment ORDER BY month, segment
"""
CHANGE = """
UPDATE lines SET quantity = quantity + 1
WHERE id = (SELECT MIN(lines.id) FROM lines JOIN products ON products.id = product_id WHERE category_id = ?)
"""

Report: TypeAlias = dict[str, Any]
Shop: TypeAlias = sqlite3.Connection


def build(path: Path, seed: int) -> None:
    """Write the database file; the same seed gives the same rows."""
    draw = random.Random(seed).random  # int(draw() * n) is several times faster than randrange(n)
    prices = [100 + int(draw() * 20_000) for _ in range(PRODUCTS)]
    sold = (int(draw() * PRODUCTS) for _ in range(LINES))
    orders = ((i, f"2025-{1 + int(draw() * 12):02}", SEGMENTS[int(draw() * 4)]) for i in range(ORDERS))
    lines = ((i, int(draw() * ORDERS), item, 1 + int(draw() * 5), prices[item]) for i, item in enumerate(sold))
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # readers are not blocked while a row changes
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        insert = connection.executemany
        insert("INSERT INTO categories VALUES (?, ?, 1)", ((i, f"Category {i}") for i in range(1, CATEGORIES + 1)))
        insert("INSERT INTO products VALUES (?, ?, ?)", ((i, i % CATEGORIES + 1, p) for i, p in enumerate(prices)))
        insert("INSERT INTO orders VALUES (?, ?, ?)", orders)
        insert("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", lines)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")


def connect(path: Path) -> Shop:
    """Open the database file."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")  # the file is deleted at the end of the demo
    return connection


def report(shop: Shop, category: int) -> Report:
    """Compute the revenue of a category by month and customer segment."""
    found = shop.execute(REPORT, (category,)).fetchall()
    if not found:
        raise LookupError(f"category {category} is not in the database; categories are 1 to {CATEGORIES}")
    rows = tuple((month, segment, orders, Decimal(cents).scaleb(-2)) for *_, month, segment, orders, cents in found)
    return {"category": category, "name": found[0][0], "revision": found[0][1], "rows": rows}


def change(shop: Shop, category: int) -> Report:
    """Sell one piece more in a category, count its revision up, commit, and return the new report."""
    with shop:
        shop.execute("BEGIN IMMEDIATE")
        shop.execute(CHANGE, (category,))
        shop.execute("UPDATE categories SET revision = revision + 1 WHERE id = ?", (category,))
        return report(shop, category)
