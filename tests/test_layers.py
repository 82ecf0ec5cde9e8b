"""The layers of docs/architecture.md, checked on the import statements of every module.

All imports count, also those inside functions and below ``TYPE_CHECKING``: a name that is only needed by a type
checker still ties two layers together.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Folders that hold the package's code, and the dotted name each is imported under.
CODE = {
    "bt_ibkr": "bt_ibkr",
    "feeds": "bt_ibkr.feeds",
    "brokers": "bt_ibkr.brokers",
    "strategies": "bt_ibkr.strategies",
}


@dataclass(frozen=True)
class Layer:
    """One row of the table.

    Attributes:
        row: As the table numbers it.
        members: Dotted names below ``bt_ibkr`` that belong to it.
        rows: Other rows it may import from; a row may always import from itself.
        third_party: Distributions' top-level names it may import.
    """

    row: str
    members: tuple[str, ...]
    rows: tuple[str, ...]
    third_party: tuple[str, ...]


LAYERS = (
    Layer("0", ("errors", "clock", "config", "login", "redaction", "model", "version"), (), ("msgspec",)),
    Layer("1", ("wire",), ("0",), ("msgspec",)),
    # uvloop is the loop itself, where it is installed.
    Layer("2", ("session",), ("0", "1"), ("msgspec", "aiohttp", "uvloop", "cryptography", "jwt", "keyring")),
    # The library of trading days, loaded where a calendar is made.
    Layer("3", ("services",), ("0", "1", "2"), ("msgspec", "aiohttp", "exchange_calendars")),
    # Beside the services: what keeps and judges orders knows no server.
    Layer("3b", ("journal", "risk"), ("0", "1"), ("msgspec",)),
    # Recordings of ticks and archives of bars are files, whoever made them.
    Layer("3c", ("recorder", "archive"), ("0", "1"), ("msgspec", "numpy", "pandas", "pyarrow")),
    Layer("4", ("connection", "desk", "hub"), ("0", "1", "2", "3", "3b"), ("msgspec", "aiohttp", "zmq")),
    Layer(
        "5",
        ("store", "store_cycle", "store_options", "feeds", "brokers"),
        ("0", "1", "2", "3", "3b", "3c", "4"),
        ("msgspec", "backtrader"),
    ),
    Layer("6", ("strategies",), ("5",), ("backtrader",)),
    Layer(
        "7",
        ("app",),
        ("0", "1", "2", "3", "3b", "3c", "4", "5", "6", "‖"),
        ("msgspec", "backtrader", "aiohttp", "uvloop", "numpy", "pandas", "pyarrow"),
    ),
    Layer(
        "8",
        ("cli", "__main__"),
        ("0", "1", "2", "3", "3b", "3c", "4", "5", "6", "7", "‖"),
        ("msgspec", "backtrader", "rich", "typer"),
    ),
    # Tapes are Parquet files read into arrays; cryptography makes the certificate of --tls, and it checks
    # signatures, as jwt does.
    Layer(
        "‖",
        ("emulator",),
        ("0", "1"),
        ("msgspec", "aiohttp", "uvloop", "numpy", "pandas", "pyarrow", "cryptography", "jwt"),
    ),
)
BY_ROW = {layer.row: layer for layer in LAYERS}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module; the links below ``bt_ibkr`` are left to the folders they mean."""
    for folder, package in CODE.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            linked = folder == "bt_ibkr" and f"bt_ibkr.{parts[0]}" in CODE.values()
            if linked:
                continue
            names = parts[:-1] if parts[-1] == "__init__" else parts
            yield ".".join((package, *names)), path


def layer_of(module: str) -> Layer | None:
    """The row of a module; ``None`` for the package's own ``__init__``, which names what is public."""
    head = module.split(".")[1] if "." in module else ""
    return next((layer for layer in LAYERS if head in layer.members), None)


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            elif node.module == "bt_ibkr":
                # `from bt_ibkr import store` names a module; `IBKRStore` a class of the package's face.
                for alias in node.names:
                    yield node.lineno, f"bt_ibkr.{alias.name}"
            elif node.module:
                yield node.lineno, node.module


def complaint(module: str, name: str) -> str | None:
    """Why ``module`` may not import ``name``; ``None`` if it may."""
    layer = layer_of(module)
    if name.startswith("."):
        return "is a relative import"
    if layer is None:
        return None
    top = name.split(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top != "bt_ibkr":
        return None if top in layer.third_party else f"row {layer.row} may not import {top}"
    target = layer_of(name)
    if target is None:
        return f"row {layer.row} may not import the package's face"
    if target is layer or target.row in layer.rows:
        return None
    return f"row {layer.row} may not import row {target.row}"


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_rows_it_may(module: str) -> None:
    path = MODULES[module]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}: {why}"
        for line, name in imports(path.read_text(encoding="utf-8"))
        if (why := complaint(module, name)) is not None
    ]
    assert not found, "\n".join(found)


def test_every_module_has_a_row() -> None:
    homeless = [name for name in MODULES if name != "bt_ibkr" and layer_of(name) is None]
    assert not homeless, f"Give these a row in docs/architecture.md and in LAYERS: {homeless}"


def test_table_of_the_document_is_the_one_checked() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented: dict[str, set[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 4 and cells[0] in BY_ROW:
            spelt = re.findall(r"`([\w/]+)`", cells[1])
            documented[cells[0]] = {name.removeprefix("bt_ibkr/").strip("/") for name in spelt}
    # version.py is read by packaging alone; the table need not speak of it.
    checked = {layer.row: set(layer.members) - {"version"} for layer in LAYERS}
    assert documented == checked


@pytest.mark.parametrize(
    ("module", "name", "allowed"),
    [
        ("bt_ibkr.model.order", "decimal", True),
        ("bt_ibkr.model.order", "bt_ibkr.wire.values", False),
        ("bt_ibkr.wire.orders", "bt_ibkr.model.order", True),
        ("bt_ibkr.wire.orders", "aiohttp", False),
        ("bt_ibkr.services.orders", "bt_ibkr.session.http", True),
        ("bt_ibkr.services.orders", "bt_ibkr.connection.direct", False),
        ("bt_ibkr.connection.direct", "backtrader", False),
        ("bt_ibkr.connection.direct", "bt_ibkr.journal.journal", True),
        ("bt_ibkr.journal.journal", "bt_ibkr.model.intent", True),
        ("bt_ibkr.journal.journal", "bt_ibkr.services.orders", False),
        ("bt_ibkr.journal.journal", "bt_ibkr.session.http", False),
        ("bt_ibkr.risk.gate", "bt_ibkr.model.intent", True),
        ("bt_ibkr.risk.gate", "bt_ibkr.services.orders", False),
        ("bt_ibkr.recorder.recorder", "pyarrow", True),
        ("bt_ibkr.recorder.recorder", "bt_ibkr.services.marketdata", False),
        ("bt_ibkr.strategies.pairs", "bt_ibkr.feeds", True),
        ("bt_ibkr.strategies.pairs", "bt_ibkr.session.http", False),
        ("bt_ibkr.emulator.server", "bt_ibkr.wire.values", True),
        ("bt_ibkr.emulator.server", "bt_ibkr.services.orders", False),
        ("bt_ibkr.services.orders", "bt_ibkr.emulator.types", False),
        ("bt_ibkr.app.run", "bt_ibkr.emulator.settings", True),
        ("bt_ibkr.app.run", "bt_ibkr.cli.main", False),
        ("bt_ibkr.feeds.bars", ".times", False),
        ("bt_ibkr.feeds.bars", "bt_ibkr.IBKRStore", False),
    ],
)
def test_rule(module: str, name: str, allowed: bool) -> None:
    assert (complaint(module, name) is None) is allowed


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import a.b\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from c.d import e\n"
        "def f():\n    from bt_ibkr import store\n    from . import g\n"
    )
    assert {name for _, name in imports(source)} == {"a.b", "typing", "c.d", "bt_ibkr.store", "."}
