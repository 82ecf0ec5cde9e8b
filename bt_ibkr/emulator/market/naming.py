"""Instruments of a market by name: symbols, and futures as ``ES`` (the front month), ``ESZ5``, ``ES202512``."""

from __future__ import annotations

from datetime import date

from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.model.contract import SecurityType


def named(universe: Universe, name: str, day: date) -> list[Instrument]:
    """What a symbol, a conid or the name of a future means in a market of a day; more than one if it is ambiguous.

    A product of futures is its front month of the day, unless something else has its symbol.
    """
    if name.isascii() and name.isdigit():
        found = universe.by_conid(int(name))
        return [found] if found else []
    listed = universe.by_symbol(name)
    others = [one for one in listed if one.contract.security_type is not SecurityType.FUTURE]
    if others:
        return others
    product = universe.futures.product(name)
    if product is not None:
        return universe.futures.listed(product, day)[:1]
    if listed:
        return listed
    return _future(universe, name.upper(), day) or _pair(universe, name)


def _future(universe: Universe, name: str, day: date) -> list[Instrument]:
    """By its local symbol, or by product and month; of years that share a digit the nearest that has not expired."""
    for product in universe.futures.products:
        month = name.removeprefix(product.symbol)
        if month != name and len(month) == 6 and month.isascii() and month.isdigit():
            year, number = int(month[:4]), int(month[4:])
            one = universe.futures.contract(product, year, number) if 1 <= number <= 12 else None
            return [] if one is None else [one]
        for one in universe.futures.listed(product, day):
            if one.local_symbol == name:
                return [one]
    return []


def _pair(universe: Universe, name: str) -> list[Instrument]:
    return universe.by_symbol(f"{name[:3]}.{name[3:]}") if len(name) == 6 else []
