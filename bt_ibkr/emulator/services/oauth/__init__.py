"""Authentication as the real servers do it: OAuth 1.0a, OAuth 2.0, bearer tokens."""
