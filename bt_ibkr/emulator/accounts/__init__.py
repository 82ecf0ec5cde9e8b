"""Cash, positions and margin of the emulated accounts."""
