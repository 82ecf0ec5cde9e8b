"""IBKR's payloads as IBKR spells them, and pure functions between them and ``bt_ibkr.model``."""
