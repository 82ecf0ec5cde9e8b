"""Contracts: who trades under which conid, and by which rules."""
