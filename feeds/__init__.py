"""backtrader data feeds over an IBKR session."""
