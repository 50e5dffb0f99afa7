"""The fake as a whole: two servers over one world, started in a process or by `python3 -m fake_stripe`."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from .actions import Control
from .clock import Clock
from .server import ApiServer, ControlServer, make_certificate
from .service import Service
from .store import Object, Store, wants
from .webhooks import post_until_accepted, text
from .world import ACCOUNT, World, default_key


class FakeStripe:
    """Stripe on a local port, as a context manager.

    `base_url` speaks Stripe's API, over TLS if asked, with a `certificate` that is flawed if asked (see
    `make_certificate`). `control` makes buyers, banks, networks and clocks behave; it is also served as JSON under
    `/_fake/` of `control_url`, and of `base_url` for those who know only that. With `deliver`, events are posted to
    registered webhook endpoints by themselves. The same `seed` gives the same ids in the same order.
    """

    account = ACCOUNT
    test_key = default_key("sk", "test")
    live_key = default_key("sk", "live")

    def __init__(
        self,
        port: int = 0,
        *,
        control_port: int = 0,
        host: str = "127.0.0.1",
        tls: bool = False,
        certificate: str = "",
        seed: int | None = None,
        deliver: bool = False,
    ) -> None:
        self.world = World(seed)
        self._host, self._port, self._control_port = host, port, control_port
        self._tls, self._certificate, self._deliver = tls, certificate, deliver
        self._directory: Path | None = None
        self.ca_file: str | None = None
        self.control = Control(self)

    @property
    def clock(self) -> Clock:
        return self.world.clock

    @property
    def webhook_secret(self) -> str:
        """The secret that test events are signed with where no endpoint is registered."""
        return self.world.stores[ACCOUNT, False].webhook_secret

    def start(self) -> FakeStripe:
        """Listen."""
        context = None
        if self._tls:
            self._directory = Path(tempfile.mkdtemp(prefix="fake_stripe_"))
            ca_file, context = make_certificate(self._directory, self._certificate)
            self.ca_file = str(ca_file)
        self.api = ApiServer((self._host, self._port), Service(self.world), self.control.perform, context)
        self._remote = ControlServer((self._host, self._control_port), self.control.perform)
        self.base_url = "{}://{}:{}".format(
            "https" if self._tls else "http", "localhost" if self._tls else self._host, self.api.port
        )
        self.control_url = f"http://{self._host}:{self._remote.port}"
        if self._deliver:
            self._deliveries: queue.Queue[tuple[Store, Object] | None] = queue.Queue()
            self.world.on_event = lambda store, event: self._deliveries.put((store, event))
            threading.Thread(target=self._post_events, daemon=True).start()
        self.api.start()
        self._remote.start()
        return self

    def stop(self) -> None:
        """Stop listening, and end every connection."""
        if self._deliver:
            self.world.on_event = lambda store, event: None
            self._deliveries.put(None)
        self.api.stop()
        self._remote.stop()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> FakeStripe:
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def about(self) -> dict[str, Any]:
        """Where it listens and what it knows; what `python3 -m fake_stripe` prints when it listens."""
        return {
            "base_url": self.base_url,
            "control_url": self.control_url,
            "ca_file": self.ca_file,
            "account": self.account,
            "test_key": self.test_key,
            "live_key": self.live_key,
            "webhook_secret": self.webhook_secret,
            "live_webhook_secret": self.world.stores[ACCOUNT, True].webhook_secret,
        }

    def _post_events(self) -> None:
        while True:
            waiting = self._deliveries.get()
            if waiting is None:
                return
            store, event = waiting
            with self.world.lock:
                hooks = [
                    (hook["url"], store.notes[hook["id"]]["secret"])
                    for hook in store.all("webhook_endpoint")
                    if wants(hook, event["type"])
                ]
            for url, secret in hooks:
                post_until_accepted(url, text(event), [secret], retries=3, pause=0.2)
