"""Strategies that ship as examples; each runs in every mode."""

from bt_ibkr.strategies.bracket_breakout import BracketBreakout
from bt_ibkr.strategies.pairs import Pairs
from bt_ibkr.strategies.sma_cross import SmaCross

#: Names on the command line.
SHIPPED = {"sma_cross": SmaCross, "bracket_breakout": BracketBreakout, "pairs": Pairs}

__all__ = ["SHIPPED", "BracketBreakout", "Pairs", "SmaCross"]
