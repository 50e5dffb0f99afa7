"""A backend that has done a great many calls, good and bad, is no bigger than one that has done few.

`tests/prove.sh leak` does a hundred thousand.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from backend import resident
from fake_stripe.webhooks import sign, text
from harness.database import OWNER
from network import Staller
from shop import Shop

CALLS = int(os.environ.get("PAYMENTS_CALLS", "2000"))
# A backend is as big as it is at its smallest within so many calls: where autovacuum makes its plans stale,
# it holds a megabyte more for a hundred of them.
WINDOW = 200

pytestmark = [
    pytest.mark.timeout(300 + CALLS // 5),
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="looks into /proc"),
]

APP = f"""
    create table public.fulfilments (payment uuid);
    grant insert on public.fulfilments to {OWNER};
    create function public.fulfil() returns trigger language plpgsql set search_path = '' as $$
    begin
        insert into public.fulfilments values (new.id);
        if new.customer_email_snapshot = 'unlucky@example.com' then
            raise exception 'out of stock' using detail = pg_catalog.repeat('x', 1000);
        end if;
        return null;
    end $$;
    create trigger fulfil after insert or update on payments.payment_history
        for each row execute function public.fulfil();

    create function public.undone(payload text, signature text) returns text language plpgsql as $$
    begin
        perform payments.handle_webhook('test', payload, signature);
        raise exception 'undone';
    exception when others then
        return sqlerrm;
    end $$;
"""

IDS = re.compile(r'"((?:evt|cs_test|pi|ch|cus|sub|si|in|il|inpay|re|du|dp|txn|pm)_\w+)"')
MEMORY = "select sum(total_bytes)::bigint / 1024 as kilobytes, count(*) as contexts from pg_backend_memory_contexts"


class Life:
    """The events of some buyers, told over and over, each time of other buyers."""

    def __init__(self, shop: Shop) -> None:
        control = shop.stripe.control
        for outcome in ("paid", "processing"):
            control.complete(shop.checkout("alice", metadata={"order_id": "7"}).stripe_checkout_session_id, outcome)
        session = control.complete(shop.checkout("bob", mode="subscription").stripe_checkout_session_id)
        control.renew(session["subscription"])
        control.cancel(session["subscription"])
        bought = control.complete(shop.checkout("eve").stripe_checkout_session_id)
        control.refund(bought["payment_intent"], 500)
        control.dispute(control.get(bought["payment_intent"])["latest_charge"])
        unlucky = shop.checkout(customer_email="unlucky@example.com").stripe_checkout_session_id
        control.complete(unlucky)
        self._bodies = [text(event) for event in control.events()]
        self._secret = shop.stripe.webhook_secret

    def letters(self) -> Iterator[tuple[str, str]]:
        """Bodies and signatures."""
        for number in itertools.count():
            for body in self._bodies:
                told = IDS.sub(lambda found: f'"{found[1]}x{number}"', body)
                yield told, sign(told, [self._secret])


class Calls:
    """What one backend is asked to do, again and again."""

    def __init__(self, shop: Shop, stalling: Staller) -> None:
        self._shop, self._stalling = shop, stalling
        self.connection = shop.db.connect()
        self._letters = Life(shop).letters()
        self._orders = itertools.count()
        self._last = next(self._letters)
        webhook, order = self.webhook, self.order
        self.all: list[Callable[[], None]] = [
            *(webhook, self.again, webhook, order, webhook, self.forged, webhook, self.undone, webhook),
            *(order, webhook, self.order_again, webhook, self.caught, webhook, self.refused, webhook),
            *(self.declined, webhook, self.cancelled, webhook, self.status),
        ]

    def _run(self, statement: str, *arguments: object) -> psycopg.Cursor:
        return self.connection.execute(statement, arguments)

    def _fails(self, sqlstate: str, work: Callable[[], object]) -> None:
        try:
            work()
        except psycopg.Error as error:
            assert error.sqlstate == sqlstate, error
        else:
            raise AssertionError(f"no {sqlstate}")

    def webhook(self) -> None:
        """Some of them make the app's trigger fail."""
        self._last = next(self._letters)
        self._run("select * from payments.handle_webhook('test', %s, %s)", *self._last)

    def again(self) -> None:
        self._run("select * from payments.handle_webhook('test', %s, %s)", *self._last)

    def forged(self) -> None:
        body, signature = self._last
        forged = body + " ", signature
        self._fails("22023", lambda: self._run("select * from payments.handle_webhook('test', %s, %s)", *forged))

    def undone(self) -> None:
        (said,) = self._run("select public.undone(%s, %s)", *next(self._letters)).fetchone()
        assert said == "undone"

    def caught(self) -> None:
        (said,) = self._run("select public.undone(%s, %s)", self._last[0], "t=1,v1=00").fetchone()
        assert said != "undone"

    def order(self) -> None:
        self._shop.checkout(self.connection, idempotency_key=f"order:{next(self._orders)}")

    def order_again(self) -> None:
        self._shop.checkout(self.connection, idempotency_key="order:0")

    def refused(self) -> None:
        self._fails("22023", lambda: self._shop.checkout(self.connection, success_url="nowhere"))

    def declined(self) -> None:
        """Stripe says no, once."""
        self._shop.stripe.control.fault("card_declined", path="/v1/checkout/sessions")
        self._fails("PT402", lambda: self._shop.checkout(self.connection))

    def cancelled(self) -> None:
        self._run("select set_config('payments.stripe_api_base', %s, false)", self._stalling.base_url)
        self._run("set statement_timeout = '25ms'")
        self._fails("57014", lambda: self._shop.checkout(self.connection))
        while True:
            # On a busy machine even this can take too long.
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                self._run("reset statement_timeout")
                break
        self._run("reset payments.stripe_api_base")

    def status(self) -> None:
        self._run("select * from payments.status()")


def test_a_backend_does_not_grow(shop, capsys):
    shop.db.execute(APP)
    marks = [mark for mark in (CALLS // 100, CALLS // 5, CALLS) if mark >= 2 * WINDOW]
    sizes: list[tuple[int, int]] = []
    least = sys.maxsize
    began = time.monotonic()
    with Staller(b"HTTP/1.1 200 OK\r\n") as stalling:
        calls = Calls(shop, stalling)
        pid = calls.connection.info.backend_pid
        for done, call in zip(range(1, CALLS + 1), itertools.cycle(calls.all)):
            call()
            if any(mark - WINDOW < done <= mark for mark in marks):
                least = min(least, resident(pid))
            if done in marks:
                memory = calls.connection.execute(MEMORY).fetchone()
                sizes.append((least, memory.kilobytes))
                least = sys.maxsize
                with capsys.disabled():
                    print(
                        f"\nafter {done} calls, {time.monotonic() - began:.0f} s: {sizes[-1][0]} kB resident,"
                        f" {memory.kilobytes} kB in {memory.contexts} memory contexts"
                    )
            if done % 1000 == 0:
                shop.stripe.control.clear_requests()
    failed = shop.db.value("select count(*) from payments.webhook_events where processing_status = 'failed'")
    assert failed > CALLS // 200
    first, last = sizes[0], sizes[-1]
    # What caches come to keep, however many calls there are.
    assert last[0] - first[0] < 512
    assert last[1] - first[1] < 256
