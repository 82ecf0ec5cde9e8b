"""Many strategy processes, one brokerage session: the process that owns it, and the way to it.

``server`` has the session and serves it, ``client`` is the ``Connection`` of a strategy process. Both know ticks and
orders, nothing of backtrader. See docs/hub.md.
"""
