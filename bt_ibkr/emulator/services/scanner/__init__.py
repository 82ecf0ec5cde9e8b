"""Market scanners over the universe."""
