"""Check an install of the wheel, from inside its environment: what can be imported, and what cannot."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    problems = [
        f"the bare name {name} can be imported"
        for name in ("feeds", "brokers", "strategies", "tests")
        if importlib.util.find_spec(name) is not None
    ]
    package = importlib.import_module("bt_ibkr")
    if CHECKOUT in Path(package.__path__[0]).parents:
        problems.append("bt_ibkr comes from the checkout, not from the wheel")
    names = [info.name for info in pkgutil.walk_packages(package.__path__, "bt_ibkr.")]
    for name in names:
        # Importing a __main__ would be running it.
        if not name.endswith(".__main__"):
            importlib.import_module(name)
    problems += [
        f"{name} is missing"
        for name in ("bt_ibkr.feeds", "bt_ibkr.brokers", "bt_ibkr.strategies")
        if name not in names
    ]
    if not (Path(package.__path__[0]) / "py.typed").is_file():
        problems.append("py.typed is missing")
    for problem in problems:
        sys.stderr.write(problem + "\n")
    sys.stdout.write(f"{len(names)} modules imported\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
