"""How it is measured and shown: times of statements, charts, the page."""
