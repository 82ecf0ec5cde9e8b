"""Where the emulator's prices come from, and the bars that are made of them."""
