"""Rows that others have written: one reader for all forms of file, one place for column names, labels and messages."""
