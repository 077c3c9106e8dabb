"""Kept requests that are worth a label: one store, on SQLite or PostgreSQL."""
