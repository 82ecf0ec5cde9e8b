"""Accounts, positions, ledger, summaries."""
