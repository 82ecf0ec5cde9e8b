"""Processes started and watched together, each by its policy; what they write goes to logs of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from bt_ibkr.app.hub_logs import RotatingLog
from bt_ibkr.app.hub_plan import Plan, Planned
from bt_ibkr.app.restarting import ASKED, Restarts
from bt_ibkr.errors import JournalError, JournalLockedError, UsageError
from bt_ibkr.journal.lock import OwnerLock

#: Read from a process at one time, bytes.
_CHUNK: Final = 65_536
#: How long what a process has written last is waited for: its own children may hold the pipe open, seconds.
_LAST_S: Final = 1.0
#: As a shell says that there is no such program.
_NO_PROGRAM: Final = 127

State = Literal["waiting", "running", "ended", "stopped", "failed", "killed"]
Tell = Callable[[str, str], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one.

    Attributes:
        state: ``ended`` (well, by itself), ``stopped`` (in order, when all were), ``failed`` (and not to be
            restarted), ``killed`` (it did not end in time when all were stopped).
        code: Its last exit code; below 0 the signal that it died of.
        restarts: How often it was started again.
        why: Of a failure, in words.
    """

    name: str
    state: State
    code: int | None
    restarts: int
    log: str
    why: str = ""


class _Watched:
    """One process, through all its lives.

    Args:
        plan: What it is.
        log: Where it writes.
        environment: Of all.
        tell: Told of what happens, with its name.
    """

    def __init__(self, plan: Planned, log: RotatingLog, environment: Mapping[str, str], tell: Tell) -> None:
        self.plan = plan
        self._log = log
        self._environment = {**environment, **plan.environment}
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._restarts = Restarts(plan.policy, ours=plan.ours)
        self._state: State = "waiting"
        self._code: int | None = None
        self._why = ""

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            name=self.plan.name,
            state=self._state,
            code=self._code,
            restarts=self._restarts.total,
            log=str(self._log.path),
            why=self._why,
        )

    async def watch(self) -> None:
        """Start it, again and again, until it is over."""
        try:
            while not self._stopping.is_set():
                begun_s = time.monotonic()
                self._code = await self._live()
                if self._stopping.is_set():
                    break
                if not self._goes_on(self._code, time.monotonic() - begun_s):
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._pause_s)
            if self._state != "killed":
                self._state = "stopped"
                self._say("was stopped" if self._code is None else f"was stopped: {_ending(self._code)}")
        finally:
            if self._log.dropped:
                self._tell(self.plan.name, f"{self._log.dropped} bytes of its log could not be written")
            self._log.close()

    def _goes_on(self, code: int, lived_s: float) -> bool:
        verdict = self._restarts.ended(code, lived_s)
        if verdict.again_s is None:
            self._state, self._why = ("ended" if verdict.well else "failed"), verdict.why
            self._say(_ending(code) + (f"; {verdict.why}" if verdict.why else ""))
            return False
        self._state, self._pause_s = "waiting", verdict.again_s
        self._say(f"{_ending(code)}; restart {self._restarts.total} in {verdict.again_s:g} s")
        return True

    def _say(self, text: str) -> None:
        self._tell(self.plan.name, text)
        self._log.note(f"=== {datetime.now(tz=UTC):%Y-%m-%d %H:%M:%S} UTC: {self.plan.name} {text}")

    async def _live(self) -> int:
        plan = self.plan
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *plan.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=plan.folder,
                env=self._environment,
                # A Ctrl-C of the terminal is for this process, which then ends the others in order.
                start_new_session=sys.platform != "win32",
            )
        except OSError as problem:
            self._say(f"cannot be started: {problem.strerror}: {problem.filename}")
            return _NO_PROGRAM
        self._state = "running"
        self._say(f"started, process {process.pid}")
        if self._stopping.is_set():
            # Asked to end while it was being started.
            self._signal(signal.SIGTERM)
        reading = asyncio.ensure_future(self._read(process))
        try:
            code = await process.wait()
            await asyncio.wait((reading,), timeout=_LAST_S)
        finally:
            reading.cancel()
            self._process = None
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while chunk := await process.stdout.read(_CHUNK):
            self._log.write(chunk)

    def ask_to_end(self) -> None:
        """SIGTERM: a strategy ends in order, and leaves its orders as they are."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """It, and whatever it has started."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._state = "killed"
        self._say("did not end in time and is killed")
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class Supervisor:
    """Runs a plan; made and used on one event loop.

    Args:
        plan: What.
        environment: That all processes have.
        tell: Told of what happens: whose, and what.

    Raises:
        UsageError: The folder of logs cannot be made, or another supervisor writes there: it runs the same.
    """

    def __init__(self, plan: Plan, environment: Mapping[str, str], tell: Tell) -> None:
        self._plan = plan
        self._lock = _take(plan)
        self._watched = [
            _Watched(
                one,
                RotatingLog(plan.logs / f"{one.name}.log", most_bytes=plan.most_bytes, keep=plan.keep),
                environment,
                tell,
            )
            for one in plan.strategies
        ]
        self._ending: asyncio.Task[None] | None = None

    async def run(self) -> tuple[Outcome, ...]:
        """Start all, in the plan's order; returns when none runs and none will be started again."""
        try:
            await asyncio.gather(*(one.watch() for one in self._watched))
            if self._ending is not None:
                await self._ending
        finally:
            self._lock.release()
        return tuple(one.outcome for one in self._watched)

    def stop(self) -> None:
        """Ask all to end, the last one first; who does not in time is killed."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(), name="hub-run-end")

    async def _end(self) -> None:
        begun_s = time.monotonic()
        for one in reversed(self._watched):
            one.ask_to_end()
        for one in sorted(self._watched, key=lambda one: one.plan.stop_s):
            while one.outcome.state in ("running", "waiting"):
                if time.monotonic() - begun_s > one.plan.stop_s:
                    one.kill()
                    break
                # Processes end without a word to this task; it looks.
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """All, at once."""
        for one in self._watched:
            one.kill()


def _take(plan: Plan) -> OwnerLock:
    try:
        plan.logs.mkdir(parents=True, exist_ok=True)
        return OwnerLock(plan.logs / "hub-run.lock")
    except JournalLockedError as problem:
        who = f"process {problem.pid}" if problem.pid else "another process"
        raise UsageError(
            f"The strategies that log into {plan.logs} are run by {who} already.",
            remedy="Stop that one first, or give this one a folder of its own: [logs] folder.",
        ) from None
    except (OSError, JournalError) as problem:
        raise UsageError(
            f"The folder of logs {plan.logs} cannot be used: {problem}.",
            remedy="Name another: [logs] folder.",
        ) from None


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return "ended" if code in ASKED else f"ended with exit code {code}"
