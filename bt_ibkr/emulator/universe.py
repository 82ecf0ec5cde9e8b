"""The instruments the emulator knows, under IBKR's own conids where those are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path

from bt_ibkr.emulator import universe_rows
from bt_ibkr.emulator.chains import Chains
from bt_ibkr.emulator.combos import combo
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe_events import Events
from bt_ibkr.emulator.universe_futures import PRODUCTS, Futures
from bt_ibkr.emulator.universe_table import read_table
from bt_ibkr.errors import MarketFileError, UsageError
from bt_ibkr.model.contract import Leg, SecurityType, combo_key


class Universe:
    """Instruments by conid and by symbol; the first of a symbol is its primary listing.

    Options, event contracts, futures of other times and combos are found by their conids, too, but are not
    listed: there are too many of them.

    Args:
        instruments: In the order in which a search shows them.
        futures: Products of which there are contracts by rule; none unless given.

    Attributes:
        futures: Those products.
        chains: The options.
        events: The event contracts.
    """

    def __init__(self, instruments: Iterable[Instrument] = (), futures: Futures | None = None) -> None:
        self._by_conid: dict[int, Instrument] = {}
        self._by_symbol: dict[str, list[Instrument]] = {}
        self._on: dict[int, list[Instrument]] = {}
        self._bonds: list[Instrument] = []
        self._combos: dict[int, Instrument] = {}
        self.futures = futures or Futures(())
        self.chains = Chains(self.futures)
        self.events = Events(self.futures)
        for instrument in instruments:
            self.add(instrument)

    def __len__(self) -> int:
        return len(self._by_conid)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_conid.values())

    def __contains__(self, conid: object) -> bool:
        return isinstance(conid, int) and self.by_conid(conid) is not None

    def by_conid(self, conid: int) -> Instrument | None:
        """The instrument with that conid, or ``None``; a combo's is below 0."""
        found = self._by_conid.get(conid)
        if found is not None:
            return found
        if conid < 0:
            return self._combos.get(conid)
        return self.futures.by_conid(conid) or self.events.by_conid(conid) or self.chains.by_conid(conid)

    def related(self, conid: int) -> list[Instrument]:
        """Listed instruments on another that share its symbol: CFDs and warrants, which a search does not list."""
        return list(self._on.get(conid, ()))

    def bonds(self, symbol: str = "", issuer: str = "") -> list[Instrument]:
        """Bonds by the issuer's symbol, a part of its name, or its id; no symbol finds them."""
        wanted = symbol.upper()
        return [
            one
            for one in self._bonds
            if (not issuer or one.issuer == issuer)
            and (wanted in ("", one.contract.symbol.upper()) or wanted in one.company_name.upper())
        ]

    def list_around(self, day: date) -> None:
        """List the futures that trade on a day, as if they had been named one by one."""
        for product in self.futures.products:
            for one in self.futures.listed(product, day):
                if one.contract.conid not in self._by_conid:
                    self._by_conid[one.contract.conid] = one
                    self._by_symbol.setdefault(one.contract.symbol.upper(), []).append(one)

    def combo(self, legs: tuple[Leg, ...]) -> Instrument:
        """The combo of these legs, from now on found by its conid.

        Raises:
            UsageError: As ``combos.combo``.
        """
        key = combo_key(legs)
        found = self._combos.get(key)
        if found is None:
            found = self._combos[key] = combo(legs, self.by_conid)
        return found

    def by_symbol(self, symbol: str) -> list[Instrument]:
        """All instruments of that symbol, whatever the case it is written in."""
        return list(self._by_symbol.get(symbol.upper(), ()))

    def all(self) -> list[Instrument]:
        """Every instrument, in order."""
        return list(self._by_conid.values())

    def add(self, instrument: Instrument) -> None:
        """Add an instrument.

        Raises:
            UsageError: Its conid is taken by another one.
        """
        conid = instrument.contract.conid
        held = self._by_conid.get(conid)
        if held == instrument:
            return
        if held is not None:
            raise UsageError(
                f"Conid {conid} is already taken by {held.contract.describe()}.",
                remedy="Give the instrument a conid of its own.",
            )
        self._by_conid[conid] = instrument
        on = self.by_conid(instrument.underlying_conid)
        if instrument.contract.security_type is SecurityType.BOND:
            self._bonds.append(instrument)
        elif on is not None and on.contract.symbol == instrument.contract.symbol:
            self._on.setdefault(instrument.underlying_conid, []).append(instrument)
        else:
            self._by_symbol.setdefault(instrument.contract.symbol.upper(), []).append(instrument)
        self.chains.add(instrument)

    def replace(self, instrument: Instrument) -> None:
        """Put an instrument in the place of the one that has its conid, whatever that was called."""
        conid = instrument.contract.conid
        held = self._by_conid.get(conid)
        place = 0
        if held is not None:
            listed = self._by_symbol.get(held.contract.symbol.upper(), [])
            if held in listed:
                place = listed.index(held)
                listed.remove(held)
        self._by_conid[conid] = instrument
        self._by_symbol.setdefault(instrument.contract.symbol.upper(), []).insert(place, instrument)

    def retire(self, conid: int) -> None:
        """Let a conid be found by itself only, no longer by its symbol."""
        held = self._by_conid.get(conid)
        listed = [] if held is None else self._by_symbol.get(held.contract.symbol.upper(), [])
        if held in listed:
            listed.remove(held)

    def remove(self, conid: int) -> None:
        """Forget an instrument."""
        self.retire(conid)
        gone = self._by_conid.pop(conid, None)
        self._bonds = [one for one in self._bonds if one is not gone]

    def extend_from_table(self, path: Path | str) -> int:
        """Add the rows of a CSV or Parquet table.

        ``universe_table`` tells its columns.

        Returns:
            How many instruments were added.

        Raises:
            MarketFileError: The file is missing, unreadable, lacks a column, or a row of it is wrong; then
                no row was added.
        """
        table = Path(path)
        added = read_table(table)
        trial = Universe(self, self.futures)
        for line, instrument in enumerate(added, start=1):
            try:
                trial.add(instrument)
            except UsageError as error:
                raise MarketFileError(
                    f"{table}, row {line}, column conid: {error.message}",
                    remedy="Give each row a conid of its own.",
                ) from None
        for instrument in added:
            self.add(instrument)
        return len(added)


def default_universe() -> Universe:
    """Well-known instruments of every type, each time a new and separate universe."""
    futures = Futures(PRODUCTS)
    return Universe(
        [*universe_rows.before_futures(), *futures.known(), *universe_rows.after_futures()], futures
    )
