"""The one place where two threads meet."""

from __future__ import annotations

import threading

from bt_ibkr.connection.mailbox import Mailbox, WakeUp


def test_a_flag_raised_before_is_seen() -> None:
    wake = WakeUp()
    assert not wake.wait(0)
    wake.set()
    wake.set()
    assert wake.wait(0)
    assert not wake.wait(0)


def test_order_is_kept_and_nothing_is_lost() -> None:
    """Several producers; the consumer looks only when woken, and must still see everything."""
    wake = WakeUp()
    mailboxes: list[Mailbox[int]] = [Mailbox(wake) for _ in range(3)]
    count = 5000

    def produce(mailbox: Mailbox[int]) -> None:
        for number in range(count):
            mailbox.append(number)

    threads = [threading.Thread(target=produce, args=(mailbox,)) for mailbox in mailboxes]
    for thread in threads:
        thread.start()
    taken: list[list[int]] = [[] for _ in mailboxes]
    while any(len(one) < count for one in taken):
        assert wake.wait(10.0)
        for mailbox, seen in zip(mailboxes, taken, strict=True):
            while (item := mailbox.take()) is not None:
                seen.append(item)
    for thread in threads:
        thread.join()
    assert taken == [list(range(count))] * 3
    assert [len(mailbox) for mailbox in mailboxes] == [0, 0, 0]
