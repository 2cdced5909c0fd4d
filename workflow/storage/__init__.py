"""Files that are whole or not there, their checksums, tables, downloads from the hub."""
