"""Tables of instruments: CSV or Parquet, one row each; ``docs/emulator.md`` tells the columns."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bt_ibkr.emulator.market.holidays import CALENDARS
from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import MarketFileError
from bt_ibkr.model.contract import Contract, SecurityType

_REQUIRED = ("conid", "symbol", "security_type", "exchange", "currency")
_CONTRACT_TEXT = ("listing_exchange", "company_name", "last_trade_date", "right")
_CLOCKS = ("session_open", "session_close", "extended_open", "extended_close")
#: What a row needs beyond the columns that all need.
_NEEDS = {
    SecurityType.FUTURE: ("last_trade_date",),
    SecurityType.OPTION: ("last_trade_date", "strike", "right"),
    SecurityType.FUTURE_OPTION: ("last_trade_date", "strike", "right"),
    SecurityType.WARRANT: ("last_trade_date", "strike", "right"),
    SecurityType.BOND: ("last_trade_date",),
}
_CONTRACT_NUMBERS = ("multiplier", "tick_size", "size_increment")
_NUMBERS = ("reference_price", "annual_volatility", "average_daily_volume", "coupon")
_TEXT = (*_CLOCKS, "time_zone", "calendar", "trading_class", "local_symbol", "contract_month", "issuer")
COLUMNS = (
    *_REQUIRED, *_CONTRACT_TEXT, *_CONTRACT_NUMBERS, "strike", *_NUMBERS, *_TEXT, "underlying_conid",
    "valid_exchanges", "is_us", "quote_only",
)  # fmt: skip
#: IBKR's conids are 32-bit numbers.
_CONIDS_END = 2**31
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_table(path: Path) -> list[Instrument]:
    """The instruments of a table, in its order.

    Raises:
        MarketFileError: The file is missing, unreadable, lacks a column, or a row of it is wrong.
    """
    return [_instrument_of(row, path, line) for line, row in enumerate(_rows(path), start=1)]


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as parquet

            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise MarketFileError(f"{path} does not exist.", remedy="Check the path.") from None
    except (OSError, ValueError, csv.Error) as error:
        raise MarketFileError(
            f"{path} cannot be read as a table: {error}.", remedy="Tables are CSV (UTF-8) or Parquet files."
        ) from error
    if not rows:
        raise MarketFileError(f"{path} holds no rows.", remedy="Give one row for each instrument.")
    missing = [name for name in _REQUIRED if name not in rows[0]]
    if missing:
        raise MarketFileError(
            f"{path} lacks the column {missing[0]}.", remedy=f"Columns needed: {', '.join(_REQUIRED)}."
        )
    unknown = [str(name) for name in rows[0] if name not in COLUMNS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], COLUMNS, n=1)
        raise MarketFileError(
            f"{path}: no column is called {unknown[0]!r}.",
            remedy=f"Did you mean {near[0]}?" if near else f"Columns: {', '.join(COLUMNS)}.",
        )
    return rows


def _instrument_of(row: dict[str, Any], path: Path, line: int) -> Instrument:
    def wrong(column: str, why: str) -> MarketFileError:
        return MarketFileError(f"{path}, row {line}, column {column}: {why}.")

    def text(column: str) -> str | None:
        value = row.get(column)
        return None if value is None or str(value).strip() == "" else str(value).strip()

    def number(column: str) -> float | None:
        written = text(column)
        if written is None:
            return None
        try:
            value = float(written)
        except ValueError:
            raise wrong(column, f"{written!r} is not a number") from None
        if not math.isfinite(value) or value <= 0:
            raise wrong(column, f"{written!r} is not above 0")
        return value

    def flag(column: str) -> bool | None:
        written = text(column)
        if written is None:
            return None
        if written.lower() not in _FLAGS:
            raise wrong(column, f"{written!r} is neither true nor false")
        return _FLAGS[written.lower()]

    for column in _REQUIRED:
        if text(column) is None:
            raise wrong(column, "is empty")
    conid, on = number("conid"), number("underlying_conid")
    for column, value in (("conid", conid), ("underlying_conid", on)):
        if value is not None and (value != int(value) or value >= _CONIDS_END):
            raise wrong(column, f"{row[column]!r} is not a whole number below {_CONIDS_END}")
    assert conid is not None
    security_type = SecurityType.from_wire(str(text("security_type")).upper())
    if security_type is SecurityType.UNKNOWN:
        raise wrong("security_type", f"{row['security_type']!r} is not one of IBKR's security types")
    for column in _NEEDS.get(security_type, ()):
        if text(column) is None:
            raise wrong(column, f"is empty, but {security_type.value} needs it")
    _check(text, wrong)
    contract: dict[str, Any] = {name: text(name) for name in _CONTRACT_TEXT}
    contract |= {name: number(name) for name in (*_CONTRACT_NUMBERS, "strike")}
    rest: dict[str, Any] = {name: number(name) for name in _NUMBERS}
    rest |= {name: text(name) for name in _TEXT}
    rest |= {name: flag(name) for name in ("is_us", "quote_only")}
    rest["underlying_conid"] = None if on is None else int(on)
    exchanges = text("valid_exchanges")
    exchange = str(text("exchange"))
    return Instrument(
        contract=Contract(
            conid=int(conid),
            symbol=str(text("symbol")),
            security_type=security_type,
            exchange=exchange,
            currency=str(text("currency")).upper(),
            **{name: value for name, value in contract.items() if value is not None},
        ),
        valid_exchanges=tuple(part.strip() for part in exchanges.split(";")) if exchanges else (exchange,),
        company_name=text("company_name") or "",
        **{name: value for name, value in rest.items() if value is not None},
    )


def _check(text: Callable[[str], str | None], wrong: Callable[[str, str], MarketFileError]) -> None:
    """Days, hours, zone, calendar and right must be such."""
    for column in _CLOCKS:
        written = text(column)
        if written is not None and not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", written, re.ASCII):
            raise wrong(column, f"{written!r} is not a time of day, HH:MM")
    if (text("extended_open") is None) != (text("extended_close") is None):
        raise wrong("extended_open", "extended hours need both their open and their close")
    day, month = text("last_trade_date"), text("contract_month")
    if day is not None and not _is_day(day):
        raise wrong("last_trade_date", f"{day!r} is not a day, YYYYMMDD")
    if month is not None and not _is_day(f"{month}01"):
        raise wrong("contract_month", f"{month!r} is not a month, YYYYMM")
    zone, calendar, right = text("time_zone"), text("calendar"), text("right")
    if zone is not None and not _is_zone(zone):
        raise wrong("time_zone", f"{zone!r} is not an IANA time zone")
    if calendar is not None and calendar not in CALENDARS:
        raise wrong("calendar", f"{calendar!r} is none of {', '.join(CALENDARS)}")
    if right is not None and right not in ("C", "P"):
        raise wrong("right", f"{right!r} is neither C nor P")


def _is_day(text: str) -> bool:
    if not re.fullmatch("[0-9]{8}", text, re.ASCII):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
