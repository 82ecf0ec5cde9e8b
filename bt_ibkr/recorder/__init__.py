"""Recordings of live ticks: written while they stream, read back as they came.

``TickRecorder`` writes, ``Recording`` reads; what lies on the disk is described in docs/recording.md.
"""

from bt_ibkr.recorder.format import RecordedTick, RowKind
from bt_ibkr.recorder.reading import RecordedInstrument, Recording
from bt_ibkr.recorder.recorder import RecorderCounts, RecorderSettings, RecordingSink, TickRecorder

__all__ = [
    "RecordedInstrument",
    "RecordedTick",
    "RecorderCounts",
    "RecorderSettings",
    "Recording",
    "RecordingSink",
    "RowKind",
    "TickRecorder",
]
