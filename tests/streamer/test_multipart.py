"""Parts of a message, read the cheap way."""

from __future__ import annotations

import zmq

from vedette.streamer.multipart import receive_now


def test_messages_come_whole_and_in_order_or_not_at_all() -> None:
    """What was sent in parts is read in the same parts, one message a call; None when nothing waits."""
    messages = [[b"one"], [b"", b"two", b""], [b"x" * 100_000, b"y"] * 3]
    with zmq.Context() as context, context.socket(zmq.PAIR) as near, context.socket(zmq.PAIR) as far:
        near.bind("inproc://parts")
        far.connect("inproc://parts")
        assert receive_now(far) is None
        for message in messages:
            near.send_multipart(message)
        for message in messages:
            assert far.poll(5000)
            assert receive_now(far) == message
        assert receive_now(far) is None
