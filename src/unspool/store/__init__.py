"""Recordings: one DuckDB file each, written in transactions and read without privileges."""
