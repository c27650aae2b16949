"""A run: settings, plan, processes, records."""
