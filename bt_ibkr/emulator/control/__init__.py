"""The control API: what a test or a runner may do to the market, beside IBKR's own API."""
