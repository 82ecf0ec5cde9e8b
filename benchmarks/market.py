"""The server of the benchmarks, in a process of its own: enough of IBKR's Web API to be connected to, and a
sender of frames that costs far less than any reader of them.

Threads and blocking sockets instead of asyncio: a write of 64 kB blocks until the client has room, so the
client alone sets the pace, and a paced sender wakes within some 60 µs (an event loop's timers have 1 ms).

Not an emulator: it answers the same to everyone and knows one run at a time, set by ``POST /bench/prepare``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import socket
import threading
import time

import msgspec
import payload
from scenario import FIRST_CONID, Scenario, Sent

_CLOSE = b"\x88\x02\x03\xe8"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Strategies that are not all there after it will not come any more.
_JOINING_S = 60
#: A run that is not sent by then hangs.
_SENDING_S = 60
#: Pause between the last subscription and the first frame: clients finish what they do after subscribing.
_SETTLE_S = 0.15
ACCOUNT = "DU1234567"

_STATUS = {
    "authenticated": True,
    "established": True,
    "competing": False,
    "connected": True,
    "message": "",
    "fail": "",
}
_ACCOUNTS = {
    "accounts": [ACCOUNT],
    "acctProps": {ACCOUNT: {"supportsFractions": True}},
    "aliases": {ACCOUNT: ACCOUNT},
    "selectedAccount": ACCOUNT,
    "sessionId": "bench",
    "isPaper": True,
}
_REST: dict[str, object] = {
    "/tickle": {"session": "bench", "hmds": {"error": "no bridge"}, "iserver": {"authStatus": _STATUS}},
    "/iserver/auth/status": _STATUS,
    "/iserver/marketdata/unsubscribeall": {"unsubscribed": True},
    "/iserver/accounts": _ACCOUNTS,
    "/portfolio/accounts": [{"id": ACCOUNT, "accountId": ACCOUNT, "currency": "USD", "type": "DEMO"}],
}
_GREETING = (
    {"topic": "system", "success": "bench", "isFT": False, "isPaper": True},
    {"topic": "act", "args": _ACCOUNTS},
    {"topic": "sts", "args": _STATUS},
)


class Run:
    """One prepared run and what became of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.frames = payload.trades(scenario)
        self.chunks = payload.chunks(self.frames) if not scenario.rate else []
        self.sent: Sent | None = None
        self.done = threading.Event()
        #: All strategies are there.
        self.standing = threading.Event()
        self._joined = 0
        self._lock = threading.Lock()
        if not scenario.strategies:
            self.standing.set()

    def join(self) -> None:
        """One more strategy is there."""
        with self._lock:
            self._joined += 1
            if self._joined == self.scenario.strategies:
                self.standing.set()

    def send(self, connection: socket.socket) -> None:
        """Write all frames, paced or at once."""
        if not self.standing.wait(_JOINING_S):
            return
        time.sleep(_SETTLE_S)
        cpu_ns = time.thread_time_ns()
        started_ns = time.monotonic_ns()
        stamps: list[int] = []
        try:
            if self.scenario.rate:
                stamps = self._paced(connection, started_ns)
            else:
                for chunk in self.chunks:
                    connection.sendall(chunk)
        except OSError:
            return
        self.sent = Sent(
            started_ns=started_ns,
            written_ns=time.monotonic_ns(),
            cpu_ns=time.thread_time_ns() - cpu_ns,
            sent_ns=stamps,
        )
        self.done.set()

    def _paced(self, connection: socket.socket, started_ns: int) -> list[int]:
        step_ns = 1_000_000_000 // self.scenario.rate
        stamps = []
        due_ns = started_ns
        for frame in self.frames:
            wait_ns = due_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            stamps.append(time.monotonic_ns())
            connection.sendall(frame)
            due_ns += step_ns
        return stamps


class Handler(http.server.BaseHTTPRequestHandler):
    """Requests of clients, and of the benchmark itself below ``/bench``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: the report alone is printed."""

    def do_POST(self) -> None:
        """Sessions, and the preparation of a run."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/bench/prepare":
            self.server.run = Run(msgspec.json.decode(body, type=Scenario))
            self._answer({})
        elif self.path == "/bench/join":
            self.server.run.join()
            self._answer({})
        else:
            self._rest()

    def do_GET(self) -> None:
        """REST answers, the WebSocket, and the account of a run."""
        if self.path == "/bench/sent":
            run = self.server.run
            run.done.wait(_SENDING_S)
            self._answer(run.sent)
        elif self.path == "/bench/standing":
            self._answer(self.server.run.standing.wait(_JOINING_S))
        elif "websocket" in self.headers.get("Upgrade", "").lower():
            self._websocket()
        else:
            self._rest()

    def _answer(self, value: object, status: int = 200) -> None:
        data = msgspec.json.encode(value)
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _rest(self) -> None:
        path, _, query = self.path.removeprefix("/v1/api").partition("?")
        if path == "/trsrv/stocks":
            symbol = query.rpartition("=")[2]
            self._answer({symbol: [_company(symbol)]})
        elif path.endswith("/info-and-rules"):
            self._answer(_contract(int(path.split("/")[3])))
        elif path in _REST:
            self._answer(_REST[path])
        else:
            self._answer({"error": f"{path} is not part of the benchmark", "statusCode": 404}, 404)

    def _websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        for frame in _GREETING:
            self.wfile.write(payload.framed(msgspec.json.encode(frame).decode()))
        self.close_connection = True
        self._subscriptions()

    def _subscriptions(self) -> None:
        """Read the client's messages; once every instrument is subscribed, a thread begins to send."""
        run = self.server.run
        wanted = set(run.scenario.conids)
        sender: threading.Thread | None = None
        while True:
            kind, data = self._read_frame()
            if kind == 8:
                with contextlib.suppress(OSError):
                    self.wfile.write(_CLOSE)
                break
            if kind != 1 or not data.startswith(b"smd+"):
                # Pings and `tic` stay unanswered: runs are shorter than any client's patience, and a reply
                # could fall into the middle of a batch.
                continue
            conid = int(data.split(b"+")[1])
            if conid in wanted:
                wanted.discard(conid)
                self.wfile.write(payload.picture(run.scenario, conid))
                if not wanted:
                    sender = threading.Thread(target=run.send, args=(self.connection,), daemon=True)
                    sender.start()
        if sender is not None:
            sender.join(5)

    def _read_frame(self) -> tuple[int, bytes]:
        """Opcode and unmasked data of one client frame; opcode 8 also for the end of the connection."""
        try:
            head = self.rfile.read(2)
            if len(head) < 2:
                return 8, b""
            length = head[1] & 0x7F
            if length == 126:
                length = int.from_bytes(self.rfile.read(2))
            elif length == 127:
                length = int.from_bytes(self.rfile.read(8))
            mask = self.rfile.read(4) if head[1] & 0x80 else bytes(4)
            data = self.rfile.read(length)
        except OSError:
            return 8, b""
        return head[0] & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def _company(symbol: str) -> dict[str, object]:
    contract = {"conid": FIRST_CONID + int(symbol[1:]), "exchange": "NASDAQ", "isUS": True}
    return {"name": symbol, "assetClass": "STK", "contracts": [contract]}


def _contract(conid: int) -> dict[str, object]:
    return {
        "con_id": conid,
        "symbol": f"B{conid - FIRST_CONID}",
        "instrument_type": "STK",
        "exchange": "SMART",
        "currency": "USD",
        "company_name": "BENCH",
        "rules": {"increment": 0.01},
    }


class Server(http.server.ThreadingHTTPServer):
    """One thread for each connection."""

    daemon_threads = True
    run: Run


def main() -> None:
    """Serve on a free port of the loopback address; the port is the first line of the output."""
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
