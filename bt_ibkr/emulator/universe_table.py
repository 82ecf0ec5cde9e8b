"""Tables of instruments: CSV or Parquet, one row each; see ``Universe.extend_from_table`` for the columns."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from bt_ibkr.emulator.types import Instrument
from bt_ibkr.errors import MarketFileError
from bt_ibkr.model.contract import Contract, SecurityType

_REQUIRED = ("conid", "symbol", "security_type", "exchange", "currency")
_CONTRACT_TEXT = ("listing_exchange", "company_name", "last_trade_date", "right")
_CONTRACT_NUMBERS = ("multiplier", "tick_size", "size_increment")
_NUMBERS = ("reference_price", "annual_volatility", "average_daily_volume")
_TEXT = ("session_open", "session_close", "time_zone")
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
    conid = number("conid")
    if conid is None or conid != int(conid):
        raise wrong("conid", f"{row['conid']!r} is not a whole number")
    security_type = SecurityType.from_wire(str(text("security_type")).upper())
    if security_type is SecurityType.UNKNOWN:
        raise wrong("security_type", f"{row['security_type']!r} is not one of IBKR's security types")
    contract: dict[str, Any] = {name: text(name) for name in _CONTRACT_TEXT}
    contract |= {name: number(name) for name in (*_CONTRACT_NUMBERS, "strike")}
    rest: dict[str, Any] = {name: number(name) for name in _NUMBERS}
    rest |= {name: text(name) for name in _TEXT}
    rest |= {name: flag(name) for name in ("is_us", "quote_only")}
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
