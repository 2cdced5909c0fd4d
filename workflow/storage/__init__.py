"""Reads and writes files: atomic writing, checksums, tables, downloads from the hub."""
