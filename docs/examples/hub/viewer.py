"""A program of one's own at a hub: says what AAPL trades at. It needs no right to trade.

``bt-ibkr hub run`` tells a program where the hub is, and its name there, in its environment.
"""

import os
from pathlib import Path

import backtrader as bt

from bt_ibkr import IBKRStore
from bt_ibkr.hub.joining import HubAddress


class Viewer(bt.Strategy):
    """Prints; anything with a line of its own in the log would do."""

    def next(self):
        """A trade."""
        print(bt.num2date(self.data.datetime[0]).isoformat(), self.data.close[0], flush=True)


def main():
    """Until the market, or the hub's operator, ends it."""
    keys = os.environ.get("BT_IBKR_HUB_KEYS")
    address = HubAddress(
        endpoint=os.environ["BT_IBKR_HUB"],
        name=os.environ["BT_IBKR_NAME"],
        keys=Path(keys) if keys else None,
    )
    with IBKRStore(hub=address) as store:
        cerebro = bt.Cerebro(quicknotify=True, stdstats=False)
        cerebro.adddata(store.getdata(dataname="AAPL", timeframe=bt.TimeFrame.Ticks))
        cerebro.addstrategy(Viewer)
        cerebro.run()


if __name__ == "__main__":
    main()
