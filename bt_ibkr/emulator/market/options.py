"""Markets as the command line names them: ``PATH`` or ``PATH:SYMBOL``, of a file or of a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as parquet

from bt_ibkr.clock import NS_PER_S
from bt_ibkr.emulator.market.naming import named
from bt_ibkr.emulator.market.recorded import is_recording, load_recording
from bt_ibkr.emulator.market.tape import Tape, load_ticks, merge
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.emulator.universe import Universe
from bt_ibkr.errors import MarketFileError, UsageError


class MarketOption(msgspec.Struct, frozen=True, kw_only=True):
    """A market file and the instrument it is of."""

    path: Path
    instrument: Instrument

    def load(self) -> Tape:
        """The file's tape.

        Raises:
            MarketFileError: As ``load_ticks``.
        """
        return load_ticks(self.path, self.instrument)


def parse_market_option(text: str, universe: Universe) -> MarketOption:
    """Split ``FILE[:SYMBOL]``; the symbol may be a conid and defaults to the one in the file's name.

    A future is its front month on the file's first day (``ES``), or what is named (``ESZ5``, ``ES202512``).

    Names such as ``ticks_IBM_2013-10-07.parquet`` or ``bars_EURUSD_1min.parquet`` tell the symbol.

    Raises:
        MarketFileError: The file does not exist.
        UsageError: No symbol is given or to be had from the name, or it is not known or ambiguous.
    """
    path, symbol = _split(text)
    if not path.is_file():
        raise MarketFileError(f"{path} does not exist.", remedy="Check the path of the market file.")
    if symbol is not None:
        return MarketOption(path=path, instrument=_instrument(symbol, universe, text, path))
    day = _day(path)
    for part in re.split(r"[_\s-]+", path.stem):
        if named(universe, part, day):
            return MarketOption(path=path, instrument=_instrument(part, universe, text, path))
    raise UsageError(
        f"No known symbol in the file name {path.name}.", remedy=f"Name it: {path}:SYMBOL or {path}:CONID."
    )


def load_market(texts: Iterable[str], universe: Universe) -> Tape:
    """One tape of all files and recordings named; at equal times in their order.

    Raises:
        MarketFileError: As ``parse_market_option``, ``load_ticks`` and ``load_recording``.
        UsageError: As ``parse_market_option``, or no file was named.
    """
    options: list[MarketOption] = []
    tapes: list[Tape] = []
    for text in texts:
        path, symbol = _split(text)
        if is_recording(path):
            tapes.append(load_recording(path, universe, symbol))
            _refuse_second(tapes, text, universe)
            continue
        option = parse_market_option(text, universe)
        if any(o.instrument is option.instrument and o.path.samefile(option.path) for o in options):
            raise UsageError(
                f"Market {text!r} is named a second time: every trade would count twice.",
                remedy="Name each file once.",
            )
        options.append(option)
        tapes.append(option.load())
        _refuse_second(tapes, text, universe)
    if not tapes:
        raise UsageError("No market file was named.", remedy="Name one: FILE or FILE:SYMBOL.")
    return merge(tapes)


def _refuse_second(tapes: list[Tape], text: str, universe: Universe) -> None:
    """An instrument of a recording has no other ticks beside it."""
    newest = tapes[-1]
    for conid in newest.conids:
        if any(conid in one.conids and (one.pictures() or newest.pictures()) for one in tapes[:-1]):
            instrument = universe.by_conid(conid)
            shown = str(conid) if instrument is None else instrument.contract.symbol
            raise UsageError(
                f"Market {text!r}: {shown} is in another market already, and one of them is a recording.",
                remedy="Name each instrument of a recording once.",
            )


def _split(text: str) -> tuple[Path, str | None]:
    if Path(text).exists():
        return Path(text), None
    head, colon, tail = text.rpartition(":")
    # a colon that belongs to the path (a Windows drive) leaves a separator behind it
    if colon and head and tail and not set(tail) & {"/", "\\"}:
        return Path(head), tail
    return Path(text), None


def _day(path: Path) -> date:
    """The day on which a file begins, in UTC; today for a file that does not tell (``load_ticks`` says why)."""
    try:
        with parquet.ParquetFile(path) as file:
            batch = next(file.iter_batches(1, columns=["ts"]))
        first = batch.column(0).cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())[0].as_py()
        return datetime.fromtimestamp(first // NS_PER_S, tz=UTC).date()
    except (OSError, ValueError, LookupError, TypeError, StopIteration, pa.ArrowException):
        return datetime.now(tz=UTC).date()


def _instrument(name: str, universe: Universe, text: str, path: Path) -> Instrument:
    found = named(universe, name, _day(path))
    if not found:
        raise UsageError(
            f"Market {text!r}: {name!r} is not a symbol or conid of the universe.",
            remedy="Add it with a universe table, or name another.",
        )
    american = [instrument for instrument in found if instrument.is_us]
    chosen = found if len(found) == 1 else american
    if len(chosen) != 1:
        listed = ", ".join(f"{i.contract.conid} ({i.contract.describe()})" for i in found)
        raise UsageError(
            f"Market {text!r}: {name} may be any of {listed}.", remedy=f"Name the conid: {path}:CONID."
        )
    return chosen[0]
