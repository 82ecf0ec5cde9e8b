"""Fetching history into an archive, and getting it out again: what ``bt-ibkr history`` does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as parquet

from bt_ibkr.app.visit import Visit
from bt_ibkr.archive import Archive, Columns, Correction, Series, SeriesKey
from bt_ibkr.archive.archive import frame_of, read_whole
from bt_ibkr.archive.series import one_exchange
from bt_ibkr.archive.spans import Span, Spans, union
from bt_ibkr.clock import NS_PER_S, SystemClock
from bt_ibkr.errors import ArchiveError, HistoryError, UsageError
from bt_ibkr.model.contract import Contract
from bt_ibkr.services.datanames import parse_dataname
from bt_ibkr.services.history import HistoryPart, HistoryRequest, HistoryService
from bt_ibkr.services.history_plan import DAY_NS, Planner, Window, least_s
from bt_ibkr.session.pacing import Limit

#: A bar may change for so long after it has ended.
_SETTLES_NS: Final = 60 * NS_PER_S
#: Delayed data lack the last fifteen to twenty minutes.
_DELAY_NS: Final = 20 * 60 * NS_PER_S
#: So many stored bars before a missing span are fetched again: corrections and splits show there.
_COMPARED: Final = 30
#: How far they may lie back.
_COMPARED_NS: Final = 10 * DAY_NS
#: An archive asks longer than a feed for the time before the first bar: instruments are suspended at times.
_GIVE_UP_NS: Final = 45 * DAY_NS
_NEVER_NS: Final = 1 << 62
_HISTORY: Final = "/iserver/marketdata/history"


class DownloadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be in the archive.

    Attributes:
        names: Datanames.
        start_ns, end_ns: Bars that end after the one and at or before the other; ``end_ns`` 0 for now.
        bar: IBKR's word for their length.
        refresh: Fetch also what is stored, and compare.
    """

    names: tuple[str, ...]
    start_ns: int
    end_ns: int = 0
    bar: str = "1min"
    source: str = "trades"
    regular_hours: bool = False
    refresh: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing of one series.

    Attributes:
        name: As the request has it.
        spans: To be fetched, with what is compared.
        requests: Windows to be asked for.
    """

    name: str
    contract: Contract
    series: Series
    end_ns: int
    spans: Spans
    requests: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a download will do.

    Attributes:
        seconds: The least time that IBKR's limits allow for it.
    """

    archive: Archive
    jobs: tuple[Job, ...]
    requests: int
    seconds: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a download stands.

    Attributes:
        name: Whose bars arrived last.
        done, requests: Windows asked for so far, and all of them.
        bars: Stored so far.
        left_s: The least time that IBKR's limits allow for the rest.
    """

    name: str
    done: int
    requests: int
    bars: int
    left_s: float


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one series.

    Attributes:
        bars: Fetched and stored, some of them perhaps once more.
        requests: Made for it.
        corrections: Stored bars that IBKR tells otherwise now.
        split: Old prices divided by new ones; 0 unless a split was noticed.
        begins_ns: The instrument has no bars before; 0 if that was not seen.
        missing: Of the span that was asked for, what is still not stored.
    """

    name: str
    contract: Contract
    series: Series
    bars: int = 0
    requests: int = 0
    corrections: list[Correction] = []
    split: float = 0.0
    begins_ns: int = 0
    missing: Spans = ()


def history_limits(limits: Iterable[Limit]) -> list[Limit]:
    """Those of requests for history."""
    return [limit for limit in limits if limit.path in (".*", _HISTORY)]


async def plan_download(visit: Visit, archive: Archive, request: DownloadRequest) -> Plan:
    """Find out what is missing.

    Raises:
        ContractError: A name means no instrument, or several.
        HistoryError: A combo, which has no history of its own.
        UsageError: The span is empty.
        ArchiveError: What is stored cannot be read, or is an emulator's and this is none, or the other way round.
    """
    archive.check_origin(emulated=visit.emulated)
    now_ns = visit.clock.now_ns()
    end_ns = min(request.end_ns or now_ns, now_ns)
    if request.start_ns >= now_ns:
        raise UsageError("--from lies in the future.", remedy="Give an earlier --from.")
    if request.start_ns >= end_ns:
        raise UsageError("--from is not before --to.", remedy="Give an earlier --from, or a later --to.")
    jobs = []
    for name in dict.fromkeys(request.names):
        contract = await visit.contracts.resolve(parse_dataname(name))
        if contract.legs:
            raise HistoryError(
                f"IBKR keeps no history of combos, as {name!r}.", remedy="Fetch that of its legs."
            )
        key = SeriesKey(
            conid=contract.conid,
            bar=request.bar,
            source=request.source,
            regular_hours=request.regular_hours,
            exchange=one_exchange(contract),
        )
        series = archive.series(key)
        spans = ((request.start_ns, end_ns),) if request.refresh else series.missing(request.start_ns, end_ns)
        jobs.append(_job(name, contract, series, spans, end_ns))
    total = sum(job.requests for job in jobs)
    return Plan(
        archive=archive,
        jobs=tuple(jobs),
        requests=total,
        seconds=least_s(total, history_limits(visit.limits)),
    )


def _job(name: str, contract: Contract, series: Series, spans: Spans, end_ns: int) -> Job:
    wider = union((_compared(series, start), end) for start, end in spans)
    asked = sum(bool(window.period) for span in wider for window in _windows(contract, series.key, span))
    return Job(name=name, contract=contract, series=series, end_ns=end_ns, spans=wider, requests=asked)


def _windows(contract: Contract, key: SeriesKey, span: Span) -> tuple[Window, ...]:
    planner = Planner(contract, key.bar_ns, outside_regular_hours=not key.regular_hours)
    return planner.windows(*span)


def _compared(series: Series, start_ns: int) -> int:
    """Where a missing span begins if some of the bars stored before it are fetched once more."""
    if not series.exists:
        return start_ns
    reach_ns = max(_COMPARED_NS, 2 * _COMPARED * series.key.bar_ns)
    try:
        before = series.read(max(start_ns - reach_ns, 0), start_ns)
    except ArchiveError:
        return start_ns
    return int(before.start[-_COMPARED:][0]) if before.size else start_ns


async def download(
    visit: Visit, request: DownloadRequest, plan: Plan, told: Callable[[Progress], None] = lambda now: None
) -> list[Outcome]:
    """Fetch what is missing, newest first, and store each window as it comes.

    Whenever it ends, by an error or from outside, what has come is stored, and the same request goes on from there.

    Raises:
        HistoryError: IBKR answered with an error that does not pass, or with bars of another time.
        SessionError: The way to IBKR.
        ArchiveError: The disk.
    """
    if plan.requests:
        await asyncio.to_thread(plan.archive.note_origin, emulated=visit.emulated)
    run = _Run(visit, plan, told)
    return [await run.fetch(job, request) for job in plan.jobs]


class _Run:
    def __init__(self, visit: Visit, plan: Plan, told: Callable[[Progress], None]) -> None:
        self._visit = visit
        self._history = HistoryService(visit.http)
        self._told = told
        self._limits = history_limits(visit.limits)
        self._requests = plan.requests
        self._done = 0
        self._bars = 0

    async def fetch(self, job: Job, request: DownloadRequest) -> Outcome:
        """Everything that is missing of one series."""
        outcome = Outcome(name=job.name, contract=job.contract, series=job.series)
        await self._fetch_spans(job, outcome, refresh=request.refresh)
        if outcome.split:
            # What is older was stored before the split: it is fetched again, as far as it was asked for.
            again = job.series.missing(request.start_ns, job.end_ns)
            repeated = _job(job.name, job.contract, job.series, again, job.end_ns)
            self._requests += repeated.requests
            await self._fetch_spans(repeated, outcome, refresh=False)
        # The newest bars may still change: they are not missing yet.
        until = min(job.end_ns, self._visit.clock.now_ns() - _SETTLES_NS) - 2 * job.series.key.bar_ns
        outcome.missing = job.series.missing(request.start_ns, until) if until > request.start_ns else ()
        return outcome

    async def _fetch_spans(self, job: Job, outcome: Outcome, *, refresh: bool) -> None:
        ledger = job.series.ledger()
        # What was taken for the beginning may have been a long suspension: who refreshes wants to know.
        anew = refresh and ledger is not None and bool(ledger.begins_ns)
        for start_ns, end_ns in reversed(job.spans):
            # It traded before: a time without bars is none before the first one, however long it is.
            older = 0 < await asyncio.to_thread(job.series.first_bar_ns) < end_ns - _GIVE_UP_NS
            give_up_ns = _NEVER_NS if anew or older else _GIVE_UP_NS
            wanted = HistoryRequest(
                contract=job.contract,
                bar_ns=job.series.key.bar_ns,
                start_ns=start_ns,
                end_ns=end_ns,
                source=job.series.key.source,
                outside_regular_hours=not job.series.key.regular_hours,
            )
            now_ns = self._visit.clock.now_ns()
            before_ns = 0
            async with aclosing(self._history.parts(wanted, give_up_ns=give_up_ns)) as parts:
                async for part in parts:
                    if part.known:
                        await self._store(job, part, now_ns, outcome)
                    else:
                        before_ns = max(before_ns, part.end_ns)
            if not before_ns or not outcome.bars:
                continue
            if await asyncio.to_thread(job.series.note_beginning, job.contract, before_ns):
                outcome.begins_ns = before_ns

    async def _store(self, job: Job, part: HistoryPart, now_ns: int, outcome: Outcome) -> None:
        stored = await asyncio.to_thread(
            job.series.store,
            job.contract,
            Columns.of(part.bars),
            part.start_ns,
            part.end_ns,
            now_ns=now_ns,
            final_ns=now_ns - (_DELAY_NS if part.delayed else _SETTLES_NS),
        )
        outcome.bars += stored.bars
        outcome.requests += part.asked
        outcome.corrections += stored.corrections
        outcome.split = outcome.split or stored.split
        self._bars += stored.bars
        self._done += bool(part.asked)
        left = max(self._requests - self._done, 0)
        self._told(
            Progress(
                name=job.name,
                done=self._done,
                requests=self._requests,
                bars=self._bars,
                left_s=least_s(left, self._limits),
            )
        )


def export(series: Series, out: Path, start_ns: int, end_ns: int, *, holes: bool = False) -> int:
    """Write a series to one file, CSV or Parquet by its name; how many bars.

    Both have ``end`` (the right edge, UTC), ``start``, ``open, high, low, close, volume``, and are read by
    ``pandas.read_csv(…, parse_dates=["end", "start"], index_col="end")`` and ``pandas.read_parquet``.

    Raises:
        UsageError: A name that ends otherwise, an empty span.
        ArchiveError: The series has holes there, no bars, or cannot be read; the file cannot be written.
    """
    kind = out.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise UsageError(f"{out} is neither .csv nor .parquet.", remedy="Give --out a name that ends so.")
    if end_ns and start_ns >= end_ns:
        raise UsageError("--from is not before --to.", remedy="Give an earlier --from, or a later --to.")
    frame = frame_of(read_whole(series, start_ns, end_ns or 1 << 62, holes=holes))
    if frame.empty:
        raise ArchiveError(
            f"No bars are stored in that span of {series.folder}; {out} was not written.",
            remedy="bt-ibkr history list shows what is stored.",
        )
    # Whatever happens meanwhile, there is what was there before, or all of the new.
    fresh = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if kind == ".csv":
            csv.write_csv(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), fresh)
        else:
            parquet.write_table(pa.Table.from_pandas(frame), fresh, compression="zstd")
        fresh.replace(out)
    except OSError as problem:
        raise ArchiveError(f"{out} cannot be written: {problem}.", remedy="Name another file.") from None
    finally:
        fresh.unlink(missing_ok=True)
    return len(frame)


def wall_ns() -> int:
    """The present of this machine, against which the age of stored bars is judged."""
    return SystemClock().now_ns()


def chosen(
    archive: Archive, names: Sequence[str], bar: str, source: str, regular_hours: bool | None
) -> list[Series]:
    """The series that names mean; without names all of that bar and source.

    Raises:
        ArchiveError: A name means none, or several.
    """
    if names:
        return [archive.find(name, bar, source, regular_hours=regular_hours) for name in names]
    return [
        one
        for one in archive.all()
        if (not bar or one.key.bar == bar)
        and (not source or one.key.source == source)
        and (regular_hours is None or one.key.regular_hours is regular_hours)
    ]
