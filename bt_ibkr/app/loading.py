"""Strategies by name, by module, or by file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import backtrader as bt

from bt_ibkr.brokers.tickets import MOST
from bt_ibkr.errors import OrderRefusedError, StrategyError, UsageError
from bt_ibkr.strategies import SHIPPED

_FORMS = f"Give a shipped name ({', '.join(SHIPPED)}), module:Class, or path/file.py:Class."


def load_strategy(name: str) -> type[Any]:
    """The strategy class that ``name`` means.

    Args:
        name: A shipped name, ``module:Class`` or ``path/file.py:Class`` (the class may be left out where a
            file or module defines one strategy only).

    Raises:
        StrategyError: There is no such thing; says what there is.
    """
    if name in SHIPPED:
        return SHIPPED[name]
    where, _, cls_name = name.partition(":")
    # A drive letter of Windows is no separator.
    if len(where) == 1 and cls_name[:1] in ("\\", "/"):
        drive = where
        where, _, cls_name = cls_name.partition(":")
        where = f"{drive}:{where}"
    if where.endswith(".py"):
        module = _from_file(Path(where))
    elif ":" in name or "." in where:
        module = _from_module(where)
    else:
        raise StrategyError(f"There is no strategy {name!r}.", remedy=_FORMS)
    return _pick(module, where, cls_name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise StrategyError(f"The strategy file {str(path)!r} does not exist.", remedy=_FORMS)
    module_name = f"bt_ibkr_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"The strategy file {str(path)!r} cannot be imported.", remedy=_FORMS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[module_name]
        raise StrategyError(
            f"The strategy file {str(path)!r} could not be run: {type(problem).__name__}: {problem}.",
            remedy=f"Try it by itself: python {path}",
        ) from problem
    return module


def _from_module(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as problem:
        raise StrategyError(f"There is no module {problem.name!r} (for {where!r}).", remedy=_FORMS) from None
    except (Exception, SystemExit) as problem:
        raise StrategyError(
            f"The module {where!r} could not be imported: {type(problem).__name__}: {problem}.",
            remedy=f"Try it by itself: python -c 'import {where}'",
        ) from problem


def _pick(module: ModuleType, where: str, cls_name: str) -> type[Any]:
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, bt.Strategy) and value.__module__ == module.__name__
    }
    if not cls_name:
        if len(own) == 1:
            return next(iter(own.values()))
        raise StrategyError(
            f"{where!r} defines {len(own)} strategies ({', '.join(own) or 'none'}).",
            remedy="Name one: " + where + ":Class.",
        )
    chosen = getattr(module, cls_name, None)
    if not (inspect.isclass(chosen) and issubclass(chosen, bt.Strategy)):
        raise StrategyError(
            f"{where!r} has no strategy {cls_name!r}; it has {', '.join(own) or 'none'}.", remedy=_FORMS
        )
    return chosen


def checked(strategy: type[Any]) -> type[Any]:
    """``strategy`` with explicit sizes checked before backtrader sees them.

    backtrader drops an order of size 0 without a word and lets NaN through; in a run both end in an error.
    """

    def check(side: str, self: Any, data: Any, size: Any) -> None:
        chosen = (
            self.datas[0] if data is None else self.getdatabyname(data) if isinstance(data, str) else data
        )
        if not len(chosen):
            raise OrderRefusedError(
                f"{strategy.__name__}: {side}() before the first bar of {chosen._name}.",
                remedy="Place orders in next(), or once len(self.data) is above 0.",
            )
        if size is None:
            return
        try:
            bad = not math.isfinite(size) or size == 0 or abs(size) > MOST
        except TypeError:
            bad = True
        if bad:
            raise OrderRefusedError(
                f"{strategy.__name__}: {side}(size={size!r}) is not an order.",
                remedy="Give a finite size other than 0, or leave it out to use the sizer.",
            )

    def buy(self: Any, data: Any = None, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        check("buy", self, data, size)
        return strategy.buy(self, data, size, *args, **kwargs)

    def sell(self: Any, data: Any = None, size: Any = None, *args: Any, **kwargs: Any) -> Any:
        check("sell", self, data, size)
        return strategy.sell(self, data, size, *args, **kwargs)

    body = {"buy": buy, "sell": sell, "__doc__": strategy.__doc__, "__module__": strategy.__module__}
    metaclass: Any = type(strategy)
    guarded: type[Any] = metaclass(strategy.__name__, (strategy,), body)
    return guarded


def strategy_parameters(strategy: type[Any], assignments: list[str]) -> dict[str, Any]:
    """``name=value`` texts as keyword arguments, each of the type of the strategy's default.

    Raises:
        UsageError: No such parameter, or a value that is not of its type.
    """
    defaults = dict(strategy.params._getitems())
    chosen: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or name not in defaults:
            raise UsageError(
                f"--set {assignment!r}: {strategy.__name__} has no parameter {name!r}.",
                remedy=f"Parameters: {', '.join(f'{k}={v!r}' for k, v in defaults.items()) or 'none'}.",
            )
        chosen[name] = _value(assignment, text.strip(), defaults[name])
    return chosen


def _value(assignment: str, text: str, default: Any) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if kind is int:
            return int(text) if text.lstrip("+-").isdigit() else _finite(text)
        if kind is float:
            return _finite(text)
    except (KeyError, ValueError):
        raise UsageError(
            f"--set {assignment!r}: {text!r} is no {kind.__name__}.", remedy=f"Its default is {default!r}."
        ) from None
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
