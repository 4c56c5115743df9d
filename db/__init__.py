"""The store: one DuckDB file, opened by the server process alone. Knows no web page."""
