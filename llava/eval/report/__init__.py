"""Pages and tables of scored runs."""
