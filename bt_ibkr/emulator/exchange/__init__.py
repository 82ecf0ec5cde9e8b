"""Orders: their states, what is checked of them, and how they execute against the tape."""
