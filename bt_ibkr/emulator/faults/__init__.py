"""Faults by order: what goes wrong between a client and the real server, made to happen here."""
