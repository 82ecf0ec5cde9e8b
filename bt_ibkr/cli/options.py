"""What the options of all commands have in common."""

from __future__ import annotations

from typing import Any

import typer

from bt_ibkr.errors import UsageError


def text_option(*names: str, **settings: Any) -> Any:
    """An option that takes text, and refuses an empty one: that is a variable of a script that was never set, and
    must not pass for an option that was left out."""
    return typer.Option(*names, callback=_refuse_empty, **settings)


def _refuse_empty(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    source = context.get_parameter_source(parameter.name or "")
    texts = value if isinstance(value, list) else [value]
    if source is not None and source.name == "COMMANDLINE" and any(not str(text).strip() for text in texts):
        raise UsageError(
            f"{parameter.opts[0]} is empty.", remedy="Give it a value, or leave the option out altogether."
        )
    return value
