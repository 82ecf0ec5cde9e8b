"""backtrader brokers and commission schemes for IBKR."""
