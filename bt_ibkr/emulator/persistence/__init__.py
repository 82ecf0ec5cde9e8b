"""What the emulator knows, kept in a file: it survives the emulator's own end, whatever ended it."""
