"""The WebSocket: connections, topics, and the hub that turns the engine's callbacks into frames."""
