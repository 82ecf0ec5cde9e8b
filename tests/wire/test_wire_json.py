"""JSON bodies and error envelopes."""

from __future__ import annotations

import pytest

from bt_ibkr.errors import WireError
from bt_ibkr.wire import json


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "Bad Request: no bridge", "statusCode": 400}, "Bad Request: no bridge"),
        ({"error": "Bad Request: accountId needed", "statusCode": 400}, "Bad Request: accountId needed"),
        ({"error": "reply id not found: '1'"}, "reply id not found: '1'"),
        ({"error": "no session"}, "no session"),
        (
            {"error": "id: 39687, error: invalid consumer", "statusCode": 401},
            "id: 39687, error: invalid consumer",
        ),
        ({"status": "waiting for reply"}, "waiting for reply"),
        ({"error": "Please query /accounts first"}, "Please query /accounts first"),
        ({"error": "unknown"}, "unknown"),
        ({"error": "Service Unavailable", "statusCode": 503}, "Service Unavailable"),
        ({"error": "Order 999999999999 is not found", "statusCode": 503}, "Order 999999999999 is not found"),
        ({"error": "unable to subscribe", "code": 500, "topic": "sor"}, "unable to subscribe"),
        ({"error": {"code": "x", "message": "inner"}}, "inner"),
        ({"error": True}, "unspecified error"),
        ({"type": "/simple", "title": "Bad Request", "status": 400}, "Bad Request"),
        ({"title": "Bad Request", "detail": "no scope", "status": 400}, "Bad Request: no scope"),
        ([{"order_id": "-1", "order_status": "Failed", "text": "The size"}], "The size"),
        ([{"order_id": -1}], "order refused"),
        ({"message": "waiting for session"}, "waiting for session"),
        ({"message": "success"}, None),
        ({"message": "triggered"}, None),
        ({"message": "", "authenticated": True}, None),
        ({"message": "hello", "authenticated": True}, None),
        ({"error": None}, None),
        ({"error": ""}, None),
        ({"status": "submitted"}, None),
        ({"status": True}, None),
        ({"success": "Account already set"}, None),
        ({}, None),
        ([], None),
        ([{"order_id": "5"}], None),
        ([{"order_id": True}], None),
        ("Request was submitted", None),
        (None, None),
        (5, None),
    ],
)
def test_error_text(body: object, text: str | None) -> None:
    assert json.error_text(body) == text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<html><body><h1>Resource not found</h1></body></html>", "HTML.*Resource not found"),
        (b"Request was submitted", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b"1e999", "not JSON"),
        (b"[1]x", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[" * 80 + b"]" * 80, "nested"),
        ("\ud800", "not JSON"),
    ],
)
def test_what_is_no_json(body: bytes | str, words: str) -> None:
    with pytest.raises(WireError, match=words):
        json.decode(body)


def test_flat_bodies_may_hold_many_containers() -> None:
    assert json.decode(b"[" + b",".join([b"[]"] * 200) + b"]") == [[]] * 200


def test_a_body_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "MAX_BODY", 10)
    with pytest.raises(WireError, match="refused"):
        json.decode(b'"0123456789"')


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "(empty body)"),
        (b"<html><body><h1>Resource not found</h1></body></html>", "Resource not found"),
        (b"<p>", "(HTML)"),
        (b'{"error":"no bridge"}', "no bridge"),
        (b"not  authenticated", "not authenticated"),
        (b"\xff", "\ufffd"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_describe(body: bytes | str, text: str) -> None:
    assert json.describe(body) == text
