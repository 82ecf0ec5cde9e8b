"""A running account of a session, its banner and its summary, for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bt_ibkr.app.result import OrderBooks, RecordingSummary, RunResult, utc_text
from bt_ibkr.feeds.times import epoch_ns

if TYPE_CHECKING:
    # It brings the whole emulator with it.
    from bt_ibkr.app.trade import Banner

#: A line of prices is shown this often at most, in bars of the first instrument.
_BARS_A_LINE = 60


class Teller:
    """Tells a run as it goes, on standard output.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = 0

    def _say(self, time_ns: int, text: str) -> None:
        # backtrader's day numbers resolve 10 µs: round to the millisecond first.
        stamp = (
            utc_text((time_ns + 500_000) // 1_000_000 * 1_000_000)[:19].replace("T", " ")
            if time_ns
            else " " * 19
        )
        self._console.print(f"[dim]{stamp}[/] {text}")

    def on_bar(self, strategy: Any, time_ns: int) -> None:
        self._bars += 1
        if self._bars % _BARS_A_LINE == 1:
            prices = "  ".join(f"{d._name} {d.close[0]:.2f}" for d in strategy.datas if len(d))
            value = strategy.broker.getvalue()
            self._say(time_ns, f"[dim]bar {self._bars:>5}  {escape(prices)}  value {value:,.2f}[/]")

    def on_order(self, order: Any) -> None:
        if order.p.simulated:
            return
        what = f"{order.ordtypename().lower()} {abs(order.created.size):g} {order.data._name}"
        status = order.getstatusname()
        at = epoch_ns(order.executed.dt) if order.executed.dt else _time_of(order)
        if status in ("Completed", "Partial"):
            colour = "green" if order.isbuy() else "magenta"
            text = f"[{colour}]{status.lower():<9}[/] {escape(what)} at {order.executed.price:.4f}"
            self._say(at, text + f"  commission {order.executed.comm:.2f}")
        elif status in ("Canceled", "Expired", "Margin", "Rejected"):
            reason = f": {order.info['reason']}" if "reason" in order.info else ""
            self._say(_time_of(order), f"[yellow]{status.lower():<9}[/] {escape(what + reason)}")
        elif status == "Submitted":
            self._say(_time_of(order), f"submitted {escape(what)} {order.getordername()}")

    def on_trade(self, trade: Any) -> None:
        if trade.isclosed:
            colour = "green" if trade.pnlcomm >= 0 else "red"
            self._say(
                epoch_ns(trade.dtclose), f"[{colour}]trade     {trade.data._name} {trade.pnlcomm:+,.2f}[/]"
            )

    def on_data(self, data: Any, status: str) -> None:
        self._say(0, f"[cyan]data      {escape(str(data._name))} {status}[/]")

    def on_store(self, message: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        about = args[0] if args else ""
        told = (getattr(about, name, None) for name in ("cause", "text"))
        cause = next((text for text in told if text), kwargs.get("why") or kwargs.get("error") or "")
        self._say(0, f"[cyan]session   {escape(str(message))} {escape(str(cause))}[/]")


def show_banner(console: Console, banner: Banner) -> None:
    """Account, mode, connection and data quality, before the first order can leave."""
    colour = "red" if banner.mode == "live" else "green"
    table = Table(title=f"Mode {banner.mode}", title_justify="left", show_header=False, border_style=colour)
    table.add_column()
    table.add_column()
    table.add_row("account", f"[bold]{escape(banner.account)}[/] ({banner.kind})")
    table.add_row(
        "mode", f"[bold {colour}]{banner.mode}[/]" + (": real money" if banner.mode == "live" else "")
    )
    server = " an emulator" if banner.emulator else ""
    table.add_row("connection", escape(banner.connection) + server)
    for name, code, meaning in banner.data:
        table.add_row(f"data {escape(name)}", f"{meaning} ({escape(code) or 'not told'})")
    console.print(table)


def show_summary(console: Console, result: RunResult) -> None:
    """The table at the end of a run."""
    if result.executions:
        # Eighty columns hold it only without frames; a price cut short is worse than none.
        fills = Table(
            title="Executions", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
        )
        for heading in ("time (UTC)", "side", "size", "symbol", "price", "fee", "order"):
            right = heading in ("size", "price", "fee")
            # A strategy's name may be long: then its key goes on in the next line, whole all the same.
            whole = heading != "order"
            fills.add_column(heading, justify="right" if right else "left", no_wrap=whole, overflow="fold")
        for row in result.executions:
            fills.add_row(
                row.time[:19].replace("T", " "), row.side, f"{row.size:g}", row.symbol,
                f"{row.price:.4f}", f"{row.commission:.2f}", row.order_ref or "",
            )  # fmt: skip
        console.print(fills)
    table = Table(title=f"{result.strategy} in mode {result.mode}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    positions = ", ".join(f"{name} {p.size:g}" for name, p in result.position.items() if p.size) or "flat"
    for name, value in (
        ("bars", str(result.bars)),
        ("orders", str(len(result.orders))),
        ("executions", str(len(result.executions))),
        ("closed trades", str(result.trades)),
        ("position", positions),
        ("commission", f"{sum(e.commission for e in result.executions):,.2f}"),
        ("cash", f"{result.cash:,.2f}"),
        ("value", f"{result.value:,.2f}"),
        ("profit", f"{result.value - result.start_value:+,.2f}"),
        *_books_rows(result),
        *_recording_rows(result),
    ):
        table.add_row(name, value)
    console.print(table)
    if isinstance(result.books, OrderBooks):
        for difference in result.books.differences:
            console.print(f"[yellow]difference at the start:[/] {escape(difference)}")
    for error in result.errors:
        console.print(f"[bold red]error:[/] {escape(error)}")


def _books_rows(result: RunResult) -> list[tuple[str, str]]:
    """What a run on an account leaves behind."""
    books = result.books
    if not isinstance(books, OrderBooks):
        return []
    why = f" by {books.trading_by}: {books.trading_reason}" if books.trading != "active" else ""
    rows = [
        ("trading", escape(books.trading + why)),
        ("open orders", escape(", ".join(books.open) or "none")),
        ("differences at the start", str(len(books.differences) or "none")),
    ]
    if books.unknown:
        rows.insert(1, ("[bold red]outcome unknown[/]", escape(", ".join(books.unknown))))
    return rows


def _recording_rows(result: RunResult) -> list[tuple[str, str]]:
    made = result.recording
    if not isinstance(made, RecordingSummary):
        return []
    dropped = f", {made.dropped:,} dropped" if made.dropped else ""
    return [("recorded", escape(f"{made.ticks:,} ticks into {made.folder}{dropped}"))]


def _time_of(order: Any) -> int:
    return epoch_ns(order.data.datetime[0]) if len(order.data) else 0
