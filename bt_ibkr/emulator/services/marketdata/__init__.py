"""Snapshots of the top of the book, and their fields."""
