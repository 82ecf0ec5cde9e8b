"""The interface between strategies and the session."""
