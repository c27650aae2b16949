"""Rows to train on: from public data sets or own files."""
