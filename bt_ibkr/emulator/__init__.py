"""A server of the IBKR Web API over real HTTP and WebSocket, with a market behind it."""
