"""Running one strategy class in any mode."""

from bt_ibkr.app.backtest import run_backtest
from bt_ibkr.app.request import RunRequest, Stopper
from bt_ibkr.app.sim import run_sim
from bt_ibkr.app.trade import run_trade

__all__ = ["RunRequest", "Stopper", "run_backtest", "run_sim", "run_trade"]
