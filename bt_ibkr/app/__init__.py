"""Run modes, loading of strategies, reports."""
