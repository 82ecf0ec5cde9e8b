"""Trade live with backtrader over the Interactive Brokers Web API."""

from typing import TYPE_CHECKING, Any

from bt_ibkr.version import __version__

if TYPE_CHECKING:
    from bt_ibkr.brokers.exec_types import ExecType
    from bt_ibkr.store import IBKRStore

__all__ = ["ExecType", "IBKRStore", "__version__"]


def __getattr__(name: str) -> Any:
    # backtrader and what stands on it are loaded by whoever asks for the store; the emulator needs neither.
    if name == "IBKRStore":
        from bt_ibkr.store import IBKRStore

        return IBKRStore
    if name == "ExecType":
        from bt_ibkr.brokers.exec_types import ExecType

        return ExecType
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
