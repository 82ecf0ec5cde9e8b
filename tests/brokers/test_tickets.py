"""backtrader's orders as tickets: every type, keyword and price, and what is refused before anything is sent."""

from __future__ import annotations

import math
import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import backtrader as bt
import msgspec
import numpy as np
import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st

from bt_ibkr.brokers.exec_types import ExecType
from bt_ibkr.brokers.tickets import check_arguments, make_ticket
from bt_ibkr.errors import OrderRefusedError
from bt_ibkr.model.contract import Contract, Leg, SecurityType, combo_key
from bt_ibkr.model.order import OrderTicket, OrderType, Side, TimeInForce

AAPL = Contract(conid=265598, symbol="AAPL", security_type=SecurityType.STOCK)
CLOSE = 100.0


class Line:
    """A line of a feed with one value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __getitem__(self, index: int) -> float:
        return self.value


class Moments(Line):
    """The line of times."""

    def __init__(self, moment: datetime) -> None:
        super().__init__(bt.date2num(moment))
        self.moment = moment

    def date(self) -> date:
        return self.moment.date()

    def datetime(self, _ago: int = 0) -> datetime:
        return self.moment


class Feed:
    """As much of a feed as an order looks at when it is made."""

    def __init__(self, zone: Any = None, now: datetime = datetime(2026, 3, 2, 15, 0)) -> None:  # noqa: DTZ001
        self._tz = zone
        self.close = Line(CLOSE)
        self.datetime = Moments(now)
        self.p = self
        self.sessionend = datetime(2026, 1, 1, 23, 59, 59).time()  # noqa: DTZ001

    def date2num(self, moment: Any) -> float:
        number: float = bt.date2num(moment if self._tz is None else self._tz.localize(moment))
        return number


def order(*, sell: bool = False, size: Any = 10, info: dict[str, Any] | None = None, **given: Any) -> Any:
    """A backtrader order as the broker makes it."""
    cls = bt.SellOrder if sell else bt.BuyOrder
    if "plimit" in given:
        given["pricelimit"] = given.pop("plimit")
    data = given.pop("data", None) or Feed()
    made = cls(data=data, size=size, **given)
    made.addinfo(**(info or {}))
    return made


def ticket(
    *, contract: Contract = AAPL, outside: bool = False, rounded: bool = True, **given: Any
) -> OrderTicket:
    return make_ticket(
        order(**given),
        account="DU1",
        contract=contract,
        client_order_id="s.k3f9a.1",
        parent=None,
        outside_regular_hours=outside,
        round_prices=rounded,
    )


TYPES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"order_type": OrderType.MARKET}),
    ({"exectype": bt.Order.Market, "price": 5.0}, {"order_type": OrderType.MARKET, "limit_price": None}),
    ({"exectype": bt.Order.Limit, "price": 99.0}, {"order_type": OrderType.LIMIT, "limit_price": 99.0}),
    ({"exectype": bt.Order.Stop, "price": 99.0}, {"order_type": OrderType.STOP, "stop_price": 99.0}),
    (
        {"exectype": bt.Order.StopLimit, "price": 101.0, "plimit": 102.0},
        {"order_type": OrderType.STOP_LIMIT, "stop_price": 101.0, "limit_price": 102.0},
    ),
    (
        {"exectype": bt.Order.StopLimit, "price": 101.0},
        {"order_type": OrderType.STOP_LIMIT, "stop_price": 101.0, "limit_price": 101.0},
    ),
    (
        {"exectype": bt.Order.StopTrailLimit, "trailamount": 2.0},
        {"order_type": OrderType.TRAIL_LIMIT, "stop_price": 102.0, "limit_price": 102.0},
    ),
    (
        {"exectype": bt.Order.StopTrail, "trailamount": 2.0},
        {"order_type": OrderType.TRAIL, "stop_price": 102.0, "trail_amount": 2.0, "trail_percent": None},
    ),
    (
        {"exectype": bt.Order.StopTrail, "trailpercent": 0.02, "sell": True},
        {"order_type": OrderType.TRAIL, "stop_price": 98.0, "trail_amount": None, "trail_percent": 2.0},
    ),
    (
        {
            "exectype": bt.Order.StopTrailLimit,
            "trailamount": 2.0,
            "price": 100.0,
            "plimit": 99.5,
            "sell": True,
        },
        {"order_type": OrderType.TRAIL_LIMIT, "stop_price": 98.0, "limit_price": 97.5, "trail_amount": 2.0},
    ),
    (
        {"exectype": bt.Order.StopTrailLimit, "trailpercent": 0.01, "price": 100.0, "plimit": 100.5},
        {
            "order_type": OrderType.TRAIL_LIMIT,
            "stop_price": 101.0,
            "limit_price": 101.5,
            "trail_percent": 1.0,
        },
    ),
    ({"exectype": bt.Order.Close}, {"order_type": OrderType.MARKET_ON_CLOSE}),
    ({"exectype": ExecType.MOC}, {"order_type": OrderType.MARKET_ON_CLOSE}),
    (
        {"exectype": ExecType.LOC, "price": 99.0},
        {"order_type": OrderType.LIMIT_ON_CLOSE, "limit_price": 99.0},
    ),
    ({"exectype": ExecType.MIDPRICE}, {"order_type": OrderType.MIDPRICE, "limit_price": None}),
    (
        {"exectype": ExecType.MIDPRICE, "price": 101.0},
        {"order_type": OrderType.MIDPRICE, "limit_price": 101.0},
    ),
    (
        {"exectype": ExecType.MIT, "price": 98.0},
        {"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 98.0},
    ),
    (
        {"exectype": ExecType.LIT, "price": 98.0, "plimit": 97.5},
        {"order_type": OrderType.LIMIT_IF_TOUCHED, "stop_price": 98.0, "limit_price": 97.5},
    ),
    ({"exectype": ExecType.REL}, {"order_type": OrderType.RELATIVE, "offset": 0.0, "limit_price": None}),
    (
        {"exectype": ExecType.REL, "price": 101.0, "info": {"offset": 0.02}},
        {"order_type": OrderType.RELATIVE, "offset": 0.02, "limit_price": 101.0},
    ),
    (
        {"price": 98.0, "info": {"order_type": "MIT"}},
        {"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 98.0},
    ),
    (
        {"price": 98.0, "info": {"orderType": "loc"}},
        {"order_type": OrderType.LIMIT_ON_CLOSE, "limit_price": 98.0},
    ),
]


@pytest.mark.parametrize(("given", "wanted"), TYPES)
def test_types_and_prices(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    made = ticket(**given)
    assert {name: getattr(made, name) for name in wanted} == wanted
    assert made.side is (Side.SELL if given.get("sell") else Side.BUY)
    assert made.quantity == 10


def test_every_type_is_named_here() -> None:
    assert {wanted["order_type"] for _, wanted in TYPES} == set(OrderType)


def test_our_execution_types_are_backtraders_nearest() -> None:
    """An order of one can be printed, copied, compared and sent to backtrader's own broker."""
    for kind, nearest in ((ExecType.LOC, "Limit"), (ExecType.MIDPRICE, "Market"), (ExecType.MOC, "Close")):
        made = order(exectype=kind, price=99.0)
        assert made.getordername() == nearest
        assert nearest in str(made)
        copied = pickle.loads(pickle.dumps(kind))
        assert (copied, copied.order_type) == (kind, kind.order_type)
        assert made.clone().exectype is kind


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        ({"tif": "IOC"}, {"time_in_force": TimeInForce.IMMEDIATE_OR_CANCEL}),
        ({"tif": TimeInForce.AT_THE_OPENING}, {"time_in_force": TimeInForce.AT_THE_OPENING}),
        ({"timeInForce": "day"}, {"time_in_force": TimeInForce.DAY}),
        ({"outsideRth": True}, {"outside_regular_hours": True}),
        ({"outside_rth": True}, {"outside_regular_hours": True}),
        ({"outsideRTH": True}, {"outside_regular_hours": True}),
        ({"cash_qty": 250.5}, {"cash_quantity": Decimal("250.5"), "quantity": Decimal(0)}),
        ({"cashQty": 100}, {"cash_quantity": Decimal(100)}),
        (
            {"algo": "Vwap", "algo_params": {"maxPctVol": 0.1, "noTakeLiq": True}},
            {"algo": "Vwap", "algo_parameters": (("maxPctVol", 0.1), ("noTakeLiq", True))},
        ),
        ({"allOrNone": True}, {"all_or_none": True}),
        ({"useAdaptive": False}, {"price_management": False}),
        ({"route": "NASDAQ"}, {"exchange": "NASDAQ"}),
        ({"listing_exchange": "NYSE"}, {"listing_exchange": "NYSE"}),
        (
            {"allocation_group": "all", "allocation_method": "NetLiq"},
            {"allocation_group": "all", "allocation_method": "NetLiq", "routed_account": "all"},
        ),
        ({"manualIndicator": True, "extOperator": "me"}, {"manual_indicator": True, "ext_operator": "me"}),
        ({"strategy": "mine", "name": "entry", "note": [1, 2]}, {"algo": None}),
    ],
)
def test_keywords(info: dict[str, Any], wanted: dict[str, Any]) -> None:
    made = ticket(info=info)
    assert {name: getattr(made, name) for name in wanted} == wanted


def test_currency_conversion() -> None:
    pair = Contract(
        conid=12087792,
        symbol="EUR.USD",
        security_type=SecurityType.FOREX,
        exchange="IDEALPRO",
        tick_size=0.00005,
    )
    made = ticket(contract=pair, info={"fx_qty": 1000, "currency_conversion": True})
    assert (made.fx_quantity, made.is_currency_conversion, made.exchange) == (Decimal(1000), True, "IDEALPRO")
    plain = ticket(contract=pair, size=20_000.5, exectype=bt.Order.Limit, price=1.123456)
    assert (plain.quantity, plain.limit_price) == (Decimal("20000.5"), 1.12345)


def test_cryptocurrency_at_market_is_immediate_by_itself() -> None:
    coin = Contract(conid=479624278, symbol="BTC", security_type=SecurityType.CRYPTO, exchange="PAXOS")
    assert ticket(contract=coin, sell=True, size=0.5).time_in_force is TimeInForce.IMMEDIATE_OR_CANCEL
    assert ticket(contract=coin, info={"cash_qty": 100}).time_in_force is TimeInForce.IMMEDIATE_OR_CANCEL
    resting = ticket(contract=coin, exectype=bt.Order.Limit, price=60_000.0, size=0.01)
    assert resting.time_in_force is TimeInForce.GOOD_TILL_CANCELLED
    with pytest.raises(OrderRefusedError, match="cash_quantity"):
        ticket(contract=coin, size=0.5)
    with pytest.raises(OrderRefusedError, match="not offered for CRYPTO"):
        ticket(contract=coin, exectype=bt.Order.Stop, price=1.0)


def test_combo() -> None:
    legs = (Leg(1, 1), Leg(2, -1))
    combo = Contract(
        conid=combo_key(legs), symbol="A-B", security_type=SecurityType.COMBO, legs=legs, spread_id=28812380
    )
    made = ticket(contract=combo, exectype=bt.Order.Limit, price=-0.333, sell=True)
    assert (made.legs, made.spread_id, made.limit_price) == (legs, 28812380, -0.33)


def test_prices_are_rounded_by_the_step_at_each_price() -> None:
    option = Contract(
        conid=7,
        symbol="SPX",
        security_type=SecurityType.OPTION,
        tick_size=0.05,
        tick_steps=((0.0, 0.05), (3.0, 0.1)),
    )
    for price, rounded in ((2.93, 2.95), (2.98, 3.0), (3.07, 3.1), (12.34, 12.3)):
        assert ticket(contract=option, exectype=bt.Order.Limit, price=price).limit_price == rounded
    both = ticket(contract=option, exectype=bt.Order.StopLimit, price=3.08, plimit=2.92)
    assert (both.stop_price, both.limit_price) == (3.1, 2.9)
    trail = ticket(contract=option, exectype=bt.Order.StopTrail, price=5.0, trailamount=0.26)
    assert trail.trail_amount == 0.3


def test_event_contracts_of_forecastex_are_only_bought() -> None:
    event = Contract(conid=7, symbol="FF", security_type=SecurityType.OPTION, exchange="FORECASTX", right="C")
    assert ticket(contract=event, exectype=bt.Order.Limit, price=0.4).limit_price == 0.4
    with pytest.raises(OrderRefusedError, match="no orders to sell") as caught:
        ticket(contract=event, exectype=bt.Order.Limit, price=0.4, sell=True)
    assert "opposite contract" in caught.value.remedy


def test_at_the_close_is_of_one_day() -> None:
    cases: tuple[tuple[Any, dict[str, Any]], ...] = ((bt.Order.Close, {}), (ExecType.LOC, {"price": 99.0}))
    for kind, more in cases:
        for valid in (None, bt.Order.DAY, datetime(2026, 3, 3, tzinfo=UTC)):
            assert ticket(exectype=kind, valid=valid, **more).time_in_force is TimeInForce.DAY


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"exectype": bt.Order.Limit}, "price=None"),
    ({"exectype": bt.Order.Limit, "price": 0}, "limit_price 0.0 is not above 0"),
    ({"exectype": bt.Order.Limit, "price": -1.0}, "limit_price -1.0 is not above 0"),
    ({"exectype": bt.Order.Limit, "price": 0.001}, "limit_price 0.0 is not above 0"),
    ({"exectype": bt.Order.Limit, "price": math.nan}, "price=nan"),
    ({"exectype": bt.Order.Limit, "price": math.inf}, "price=inf"),
    ({"exectype": bt.Order.Limit, "price": "99"}, "price='99'"),
    ({"exectype": bt.Order.Limit, "price": True}, "price=True"),
    ({"exectype": bt.Order.StopLimit, "price": 99.0, "plimit": 0}, "limit_price 0.0"),
    ({"exectype": ExecType.LIT, "price": 99.0}, "plimit=None"),
    ({"exectype": bt.Order.StopTrail}, "needs trailamount or trailpercent"),
    ({"exectype": bt.Order.StopTrail, "trailamount": -1.0}, "trail_amount -1.0"),
    ({"exectype": bt.Order.StopTrail, "trailamount": 0.001}, "trail_amount 0.0"),
    ({"exectype": bt.Order.StopTrail, "trailpercent": -0.01}, "trail_percent -1.0"),
    ({"exectype": bt.Order.StopTrail, "trailpercent": 1.5, "price": 100.0}, "trail_percent 150.0"),
    ({"exectype": bt.Order.StopTrail, "trailamount": 1.0, "trailpercent": 0.1}, "both given"),
    ({"exectype": 99}, "execution type 99"),
    ({"exectype": True}, "execution type True"),
    ({"exectype": "MIT", "price": 1.0}, "execution type 'MIT'"),
    ({"exectype": bt.Order.Limit, "price": 9.0, "info": {"order_type": "MIT"}}, "exectype says LMT"),
    ({"info": {"order_type": "PEGMKT"}}, "order_type='PEGMKT'"),
    ({"exectype": ExecType.MIT, "price": 9.0, "plimit": 8.0}, "plimit=8.0 has no meaning for type MIT"),
    ({"exectype": ExecType.REL, "info": {"offset": -0.1}}, "offset -0.1"),
    ({"info": {"offset": 0.1}}, "offset 0.1 has no meaning"),
    ({"info": {"tif": "FOK"}}, "tif='FOK'"),
    ({"info": {"tif": "GTD"}}, "needs the date"),
    ({"info": {"tif": "IOC"}, "valid": timedelta(hours=1)}, "contradict"),
    ({"info": {"tif": "GTC"}, "valid": bt.Order.DAY}, "contradict"),
    ({"info": {"tif": "OVT"}}, "time_in_force 'OVT' does not go with type MKT"),
    ({"info": {"tif": "PAX"}}, "for instruments of type CRYPTO only"),
    ({"exectype": bt.Order.Stop, "price": 9.0, "info": {"tif": "IOC"}}, "does not go with type STP"),
    ({"exectype": bt.Order.Close, "info": {"tif": "GTC"}}, "does not go with type MOC"),
    (
        {
            "exectype": bt.Order.Close,
            "contract": msgspec.structs.replace(AAPL, security_type=SecurityType.OPTION),
        },
        "order_type 'MOC' is not offered for instruments of type OPT",
    ),
    (
        {
            "exectype": ExecType.MIDPRICE,
            "contract": msgspec.structs.replace(AAPL, security_type=SecurityType.FUTURE),
        },
        "offers it for CFD, STK, WAR",
    ),
    ({"info": {"cash_qty": 0}}, "cash_qty"),
    ({"info": {"cash_qty": "much"}}, "'much'"),
    ({"exectype": bt.Order.Stop, "price": 9.0, "info": {"cash_qty": 10}}, "does not go with type STP"),
    ({"info": {"cash_qty": 10.001}}, "more than 2 decimals"),
    ({"info": {"cash_qty": 10, "all_or_none": True}}, "does not go with cash_quantity"),
    (
        {
            "info": {"cash_qty": 10},
            "contract": msgspec.structs.replace(AAPL, security_type=SecurityType.FUTURE),
        },
        "does not fit an instrument of type FUT",
    ),
    (
        {
            "info": {"cash_qty": 10},
            "sell": True,
            "contract": msgspec.structs.replace(AAPL, security_type=SecurityType.CRYPTO),
        },
        "for buying CRYPTO only",
    ),
    ({"info": {"fx_qty": 10}}, "currency conversions only"),
    ({"info": {"fx_qty": 10, "cash_qty": 10}}, "Give one"),
    ({"info": {"currency_conversion": True}}, "does not fit an instrument of type STK"),
    ({"info": {"outsideRth": True, "outside_rth": False}}, "a second time"),
    ({"info": {"outsideRth": "yes"}}, "wrong kind"),
    ({"info": {"algo_params": {"a": 1}}}, "belong to no algo"),
    ({"info": {"algo": "Vwap", "algo_params": {"a": [1]}}}, "wrong kind"),
    ({"info": {"algo": "Vwap", "algo_params": {"a": math.nan}}}, "nan"),
    ({"info": {"allocation_method": "NetLiq"}}, "to which group"),
]


@pytest.mark.parametrize(("given", "why"), REFUSED)
def test_what_cannot_be_said_is_refused_in_words(given: dict[str, Any], why: str) -> None:
    with pytest.raises(OrderRefusedError) as caught:
        ticket(**given)
    assert why in str(caught.value)


@given_by(
    st.sampled_from([given for given, _ in TYPES]),
    st.decimals(min_value="0.0001", max_value="1e9", places=4),
    st.booleans(),
)
def test_a_ticket_comes_back_from_the_journal_as_it_was(
    given: dict[str, Any], size: Decimal, sell: bool
) -> None:
    made = ticket(**(given | {"size": float(size), "sell": sell}))
    assert made.quantity == size
    assert msgspec.json.decode(msgspec.json.encode(made), type=OrderTicket) == made


@pytest.mark.parametrize(
    "given",
    [
        {"exectype": bt.Order.StopTrail, "trailamount": "1"},
        {"exectype": bt.Order.StopTrail, "trailpercent": "1"},
        {"exectype": bt.Order.StopTrail, "trailpercent": 0.1, "price": "100"},
    ],
)
def test_what_backtrader_itself_stumbles_over_is_refused_before(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        order(**given)
    plain: dict[str, Any] = dict.fromkeys(("price", "plimit", "trailamount", "trailpercent"))
    given = {name: value for name, value in given.items() if name in plain}
    with pytest.raises(OrderRefusedError, match="buy AAPL"):
        check_arguments("buy AAPL", **(plain | given))


def test_numpy_numbers_and_nothing_are_no_obstacle() -> None:
    check_arguments(
        "buy AAPL", price=np.float64(1.5), plimit=None, trailamount=np.float64(0.1), trailpercent=None
    )
