"""Every way to log on, behind one interface."""
