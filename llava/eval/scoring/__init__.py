"""From verdicts to rates with intervals."""
