"""Historical bars."""
