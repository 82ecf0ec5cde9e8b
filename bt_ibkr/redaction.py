"""No secret in a log: one filter, the values it knows, and the shapes it recognizes.

A value is known once it was read or received (``remember``); shapes catch what was not, such as a credential in
somebody else's message. Logging passes records to a logger's own filters and to no parent's, and loggers may be
made later, so ``guard`` has the filter see each record of the given roots as it is made, whatever handlers
there are; it also puts it on the loggers there are, in case another library replaces what makes records.
"""

from __future__ import annotations

import logging
import re
import threading
import traceback
from collections.abc import Iterable
from typing import Any, Final

MASK: Final = "***"
#: A shorter value would mask ordinary words.
SHORTEST: Final = 6
_SHORTEST_LINE: Final = 12
#: Most values that are known at a time; the oldest are forgotten first.
_MOST: Final = 4096
#: Loggers that may see a request, a URL or a header of ours.
ROOTS: Final = ("bt_ibkr", "aiohttp", "asyncio", "jwt", "keyring")

_NAMES = (
    r"oauth_token(?:_secret)?|oauth_signature|oauth_verifier|access_token(?:_secret)?|refresh_token|bearer_token|"
    r"sessionToken|session_token|live_session_token(?:_signature)?|client_assertion|client_secret|assertion|"
    r"diffie_hellman_response|password|TOKEN"
)
_SHAPES: Final = (
    # The whole key, also where it is cut off.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S
        ),
        MASK,
    ),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)?"), MASK),
    (re.compile(r"\b(Bearer\s+)[^\s\"',;)}\]]+", re.I), rf"\1{MASK}"),
    (re.compile(r"\b((?:Set-)?Cookie['\"]?\s*[:=]\s*['\"]?)[^'\"\r\n]+", re.I), rf"\1{MASK}"),
    (re.compile(rf"(?<!\w)((?:{_NAMES})\\?['\"]?\s*[=:]\s*\\?['\"]?)[^\s\"'&,;)}}\]\\]+"), rf"\1{MASK}"),
)

_lock = threading.Lock()
_known: dict[str, None] = {}
_pattern: re.Pattern[str] | None = None


def remember(*values: str) -> None:
    """Mask these values from now on; empty and very short ones are ignored."""
    global _pattern
    fresh = [value for value in values if len(value) >= SHORTEST]
    # Any line of a key would be a piece of it.
    lines = [line.strip() for value in fresh if "\n" in value for line in value.splitlines()]
    fresh += [line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")]
    if not fresh:
        return
    with _lock:
        for value in fresh:
            _known.pop(value, None)
            _known[value] = None
        while len(_known) > _MOST:
            del _known[next(iter(_known))]
        # The longest first: a value may be the beginning of another.
        words = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, words)))


def redact(text: str) -> str:
    """``text`` without known values and without what looks like a credential."""
    pattern = _pattern
    if pattern is not None:
        text = pattern.sub(MASK, text)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


class RedactingFilter(logging.Filter):
    """Redacts a record's message, exception and stack; lets every record through."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = _message(record)
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            clean = redact(text)
            if clean != text:
                # Formatters print this text; those that format the exception by themselves must not get it.
                record.exc_text, record.exc_info = clean, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A wrong format: logging reports it with the arguments, so they are put into words here.
        return f"{record.msg} {record.args!r}"


#: The one filter.
FILTER: Final = RedactingFilter()


_guarded: set[str] = set()


def _watch_records() -> None:
    """Have the filter see every record of the guarded loggers, those included that are made later."""
    make = logging.getLogRecordFactory()

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if any(record.name == root or record.name.startswith(f"{root}.") for root in _guarded):
            FILTER.filter(record)
        return record

    logging.setLogRecordFactory(redacted)


def guard(roots: Iterable[str] = ROOTS) -> None:
    """Redact what is logged at or below ``roots`` from now on; calling it again changes nothing."""
    with _lock:
        first = not _guarded
        _guarded.update(roots)
        if first:
            _watch_records()
    for root in roots:
        logging.getLogger(root).addFilter(FILTER)
        for name in list(logging.Logger.manager.loggerDict):
            if name.startswith(f"{root}."):
                logging.getLogger(name).addFilter(FILTER)
