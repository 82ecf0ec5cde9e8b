"""The command ``bt-ibkr``."""
