"""Running one strategy class in any mode."""

from bt_ibkr.app.backtest import run_backtest
from bt_ibkr.app.request import RunRequest, Stopper
from bt_ibkr.app.sim import run_sim

__all__ = ["RunRequest", "Stopper", "run_backtest", "run_sim"]
