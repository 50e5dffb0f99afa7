"""`python3 -m fake_stripe`: run the fake until it is interrupted."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading

from .fake import FakeStripe


def main() -> int:
    """Start, say where and with which keys, one `name value` a line, and wait."""
    parser = argparse.ArgumentParser(prog="python3 -m fake_stripe", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port of the API; 0 takes a free one")
    parser.add_argument("--control-port", type=int, default=0, help="port of the control API; 0 takes a free one")
    parser.add_argument("--tls", action="store_true", help="serve the API over TLS, with a CA made on the fly")
    parser.add_argument("--seed", type=int, help="make ids repeatable")
    parser.add_argument("--deliver", action="store_true", help="post events to registered webhook endpoints")
    parser.add_argument("--key", action="append", default=[], help="a further secret key to accept; repeatable")
    parser.add_argument("--ready-file", help="write the same as JSON here, once everything listens")
    given = parser.parse_args()
    fake = FakeStripe(
        given.port,
        control_port=given.control_port,
        host=given.host,
        tls=given.tls,
        seed=given.seed,
        deliver=given.deliver,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with fake:
        for key in given.key:
            fake.control.add_key(key)
        for name, value in fake.about().items():
            print(name, value, flush=True)
        if given.ready_file:
            # Renamed into place, so that a script that waits for the file never reads half of it.
            with open(given.ready_file + ".part", "w") as file:
                json.dump(fake.about(), file)
            os.replace(given.ready_file + ".part", given.ready_file)
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
