"""What IBKR offers, by subject, as typed calls over a session."""
