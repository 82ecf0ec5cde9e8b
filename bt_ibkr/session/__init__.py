"""The one session with IBKR: login, HTTP, WebSocket, keep-alive, pacing."""
