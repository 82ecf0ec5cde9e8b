"""Strategies that ship as examples; each runs in every mode."""
