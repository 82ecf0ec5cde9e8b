"""An emulator of our own: started, driven and ended by a run."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
import threading
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bt_ibkr.config import Trust
from bt_ibkr.emulator.settings import EmulatorSettings
from bt_ibkr.errors import (
    BtIbkrError,
    MarketFileError,
    PortInUseError,
    SessionError,
    UnreachableError,
    UsageError,
)
from bt_ibkr.session.http import ssl_context, trust_error

_START_S = 60.0
_STOP_S = 1.5
_ERRORS: dict[int, type[BtIbkrError]] = {2: UsageError, 5: MarketFileError, 6: PortInUseError}


class EmulatorProcess:
    """An emulator in a process of its own, for the length of a ``with`` block.

    Args:
        settings: What it is started with; it ends when this process does.

    Attributes:
        url: REST base.
        control: Base of the control API.
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = msgspec.structs.replace(settings, parent_pid=os.getpid())
        self.url = ""
        self.control = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._said: deque[bytes] = deque(maxlen=40)

    def __enter__(self) -> EmulatorProcess:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bt_ibkr.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A Ctrl-C of the terminal is for this process, which then ends the emulator in order.
            start_new_session=sys.platform != "win32",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Without a reader the emulator would block once the pipe is full.
        threading.Thread(target=self._listen, name="emulator-stderr", daemon=True).start()
        try:
            self._process.stdin.write(msgspec.json.encode(self.settings) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            self._read_start(line)
        except BaseException:
            self.stop()
            raise
        return self

    def _listen(self) -> None:
        process = self._process
        if process is not None and process.stderr is not None:
            for line in process.stderr:
                self._said.append(line)

    def _read_start(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = msgspec.json.decode(line)
        except msgspec.DecodeError:
            tail = b"".join(self._said).decode("utf-8", "replace")[-2000:]
            raise UnreachableError(
                f"The emulator did not start. It said: {tail or 'nothing'}",
                remedy="Try bt-ibkr emulator by itself, which shows the same more plainly.",
            ) from None
        if "error" in said:
            kind = _ERRORS.get(said.get("exit_code", 0), SessionError)
            raise kind(said["error"], remedy=said.get("remedy", ""))
        self.url, self.control = said["url"], said["control"]

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it; killed if it does not end by itself in time."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class ControlClient:
    """The emulator's control API, over one connection; blocking, one thread at a time.

    Args:
        control: Base of the control API, as the emulator prints it.
        trust: How a certificate is judged.
        timeout_s: Longest wait for an answer.
    """

    def __init__(self, control: str, *, trust: Trust | None = None, timeout_s: float = 30.0) -> None:
        parts = urlsplit(control)
        self._path = parts.path
        self._url = control
        host, port = parts.hostname or "127.0.0.1", parts.port
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl_context(trust or Trust(), control)
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=None if isinstance(context, bool) else context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        return self._ask("POST", path, msgspec.json.encode(body))

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        connection = self._connection
        try:
            # http.client sets TCP_NODELAY by itself since Python 3.6.
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, self._path + path, body=body, headers=headers)
            response = connection.getresponse()
            answer = response.read()
        except ssl.SSLCertVerificationError as problem:
            connection.close()
            raise trust_error(self._url, problem.verify_message) from None
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            raise UnreachableError(
                f"The emulator's control API at {self._url} did not answer {method} {path}: {problem}.",
                remedy="Start an emulator with bt-ibkr emulator, or name the right address.",
            ) from None
        if response.status != 200:
            raise SessionError(
                f"The emulator refused {method} {path}: {answer[:500].decode('utf-8', 'replace')}",
                remedy="Look at what it says; docs/emulator.md tells what its control API takes.",
            )
        return msgspec.json.decode(answer)
