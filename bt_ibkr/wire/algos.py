"""``/iserver/contract/{conid}/algos``: which of IBKR's algorithms a contract takes, with their parameters.

Wire facts: ``required`` is the text ``"true"`` and missing otherwise; ``maxValue`` may be a whole number where
``minValue`` is a fraction; without ``addParams=1`` no parameters come.
"""

from __future__ import annotations

import msgspec

from bt_ibkr.wire import fields


class AlgoParameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of an algorithm.

    Attributes:
        parameter_id: What an order names it by.
        kind: ``String``, ``Boolean``, ``Time``, ``Double`` or ``Integer``; ``""`` if not said.
        choices: Allowed texts; empty if any.
        minimum, maximum: Allowed range, both ends included.
        default: As the server writes it.
    """

    parameter_id: str
    name: str = ""
    description: str = ""
    kind: str = ""
    required: bool = False
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    default: str | float | int | bool | None = None


class Algo(msgspec.Struct, frozen=True, kw_only=True):
    """An algorithm; orders name it by ``algo_id``."""

    algo_id: str
    name: str
    parameters: tuple[AlgoParameter, ...] = ()


class _Algo(msgspec.Struct):
    id: object = None
    name: object = None
    parameters: object = None


class _Parameter(msgspec.Struct, rename="camel"):
    id: object = None
    name: object = None
    description: object = None
    value_class_name: object = None
    required: object = None  # "true"
    legal_strings: object = None
    min_value: object = None
    max_value: object = None
    default_value: object = None


def algos(body: object) -> tuple[Algo, ...]:
    """The algorithms of one contract.

    Raises:
        WireError: Not an object with a list, an error, or an algorithm or parameter without an id.
    """
    listed = fields.required(fields.mapping(body, "contract/algos").get("algos"), "contract/algos: the list")
    return fields.each(fields.array(listed, "contract/algos"), _algo, None)


def _algo(item: object) -> Algo:
    row = fields.payload(item, _Algo, "algo")
    key = fields.required(fields.text(row.id), "algo: id")
    return Algo(
        algo_id=key,
        name=fields.text(row.name) or key,
        parameters=tuple(_parameter(one) for one in fields.rows(row.parameters)),
    )


def _parameter(item: object) -> AlgoParameter:
    row = fields.payload(item, _Parameter, "algo parameter")
    default = row.default_value
    return AlgoParameter(
        parameter_id=fields.required(fields.text(row.id), "algo parameter: id"),
        name=fields.text(row.name) or "",
        description=fields.text(row.description) or "",
        kind=fields.text(row.value_class_name) or "",
        required=bool(fields.lenient(fields.flag, row.required, "required")),
        choices=fields.words(row.legal_strings),
        minimum=fields.lenient(fields.amount, row.min_value, "minValue"),
        maximum=fields.lenient(fields.amount, row.max_value, "maxValue"),
        default=default if isinstance(default, (str, float, int, bool)) else None,
    )
