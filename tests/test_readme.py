"""The README, played: every ```sql block in order, in one database, as whoever its first line names.

`-- As Alice` runs a block as a gateway does for Alice, `-- As a visitor` as for somebody
without a token, `-- As the role NAME` under SET ROLE; other blocks run as a superuser. A
plain block that follows is what psql must print, but for footers, with `…` for anything; a
block may fail only if an error is what it must print. HTML comments, which readers do not see, are what
happens outside of the database in between. Secrets that the page cuts short are the fake's.

`tests/run.sh tests/test_readme.py --accept` writes what was printed into the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from psycopg import sql

from fake_stripe import FakeStripe
from harness import ROOT, database
from harness.database import GATEWAY_ROLES, Database
from test_golden import normalised

README = ROOT / "README.md"

PIECE = re.compile(
    r"^<!-- (?P<direction>[^\n]*) -->$"
    r"|^```sql\n(?P<script>.*?)^```$(?:\n\n```\n(?P<printed>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)

PUBLIC = """
select proname as name, coalesce(proargnames[:pronargs], '{}') as arguments
  from pg_catalog.pg_proc
 where pronamespace = 'payments'::pg_catalog.regnamespace
"""


class Block(NamedTuple):
    """A ```sql block, and what the page says it prints, if it does."""

    line: int
    script: str
    printed: str | None

    @property
    def fails(self) -> bool:
        return "ERROR:" in (self.printed or "")

    def prints(self, output: str) -> bool:
        """Is this what the page says? Ids count as equal where they are equal to one another."""
        wanted = re.escape(normalised(self.printed or "")).replace("…", ".*?")
        return bool(re.fullmatch(wanted, normalised(output), re.DOTALL))


class World:
    """What is outside of the database: Stripe, its buyers, and the gateway in front."""

    def __init__(self, db: Database, stripe: FakeStripe) -> None:
        self.shop = self.db = db
        self.stripe = stripe
        for livemode in (False, True):
            stripe.control.price(1900, name="A good book", lookup_key="book", livemode=livemode)
            stripe.control.price(900, name="Pro", interval="month", lookup_key="pro_monthly", livemode=livemode)
        customer = {"email": "erin@example.com", "metadata[user_id]": "erin"}
        stripe.control.call("POST", "/v1/customers", customer, livemode=True)

    def direct(self, direction: str) -> None:
        """Carries out a stage direction."""
        act = {
            "The buyer pays.": self._pay,
            "Stripe's webhooks arrive.": self._deliver,
            "The subscription renews.": self._renew,
            "In another database, installed and not connected.": self._leave,
            "Back in the shop.": self._return,
        }.get(direction)
        assert act, f"nobody knows how to play: {direction}"
        act()

    def _pay(self) -> None:
        latest = "select stripe_checkout_session_id from payments.checkout_sessions order by created_at desc limit 1"
        self.stripe.control.complete(self.db.value(latest))

    def _renew(self) -> None:
        self.stripe.control.renew(self.db.value("select stripe_subscription_id from payments.subscriptions"))

    def _deliver(self) -> None:
        connected = self.db.execute("select environment from payments.stripe_connections where status = 'connected'")
        for (environment,) in connected.fetchall():
            live = environment == "live"
            endpoints = self.stripe.control.call("GET", "/v1/webhook_endpoints", livemode=live)["data"]
            wanted = [type for endpoint in endpoints for type in endpoint["enabled_events"]] or None
            for event in self.stripe.control.deliveries(types=wanted, livemode=live):
                with self.db.request(headers={"Stripe-Signature": event["signature"]}) as gateway:
                    gateway.execute("select api.stripe_webhook(%s::json)", (event["body"],))

    def _leave(self) -> None:
        self.db = database.create(self.shop.cluster, template="template0")
        self.db.execute("create extension payments")
        self.db.execute("select payments.install('payments_owner')")

    def _return(self) -> None:
        self.db.close()
        self.db = self.shop

    def play(self, block: Block) -> str:
        """What psql prints."""
        arguments = ["-q", "-P", "footer=off"]
        if ":'body'" in block.script:
            event = self.stripe.control.delivery(self.stripe.control.events()[-1]["id"])
            arguments += ["-v", f"body={event['body']}", "-v", f"signature={event['signature']}"]
        played = self.db.psql(*arguments, "-v", "ON_ERROR_STOP=1", input=self._entered(self._filled_in(block.script)))
        assert bool(played.returncode) == block.fails, f"README.md:{block.line}: {block.script}\n{played.stdout}"
        return re.sub(r" +$", "", played.stdout, flags=re.MULTILINE).rstrip("\n") + "\n"

    def _filled_in(self, script: str) -> str:
        about = self.stripe.about()
        live = "'live'" in script
        secrets = {
            "sk_test_…": about["test_key"],
            "sk_live_…": about["live_key"],
            "whsec_…": about["live_webhook_secret" if live else "webhook_secret"],
        }
        for cut, whole in secrets.items():
            script = script.replace(cut, whole)
        return script

    def _entered(self, script: str) -> str:
        who = re.match(r"-- As (the role (?P<role>\w+)|(?P<visitor>a visitor)|(?P<user>[A-Z]\w+))\b", script)
        if not who:
            return script
        role = who["role"] or ("anon" if who["visitor"] else "authenticated")
        claims = {"role": role, **({"sub": who["user"].lower()} if who["user"] else {})}
        settings = "" if who["role"] else f"set local request.jwt.claims = '{json.dumps(claims)}';\n"
        return f"begin;\nset local role {role};\n{settings}{script}commit;\n"


def pieces() -> Iterator[str | Block]:
    """The page's stage directions and blocks, in order."""
    page = README.read_text()
    for found in PIECE.finditer(page):
        if found["direction"]:
            yield found["direction"]
        else:
            yield Block(page.count("\n", 0, found.start()) + 2, found["script"], found["printed"])


@pytest.fixture
def world(make_cluster) -> Iterator[World]:
    """A server on which nothing has happened yet but that a gateway was set up."""
    cluster = make_cluster()
    shop = database.create(cluster, "shop", template="template0")
    shop.execute(GATEWAY_ROLES)
    with FakeStripe() as fake:
        statement = sql.SQL("alter database shop set payments.stripe_api_base = {}")
        shop.execute(statement.format(sql.Literal(fake.base_url)))
        yield World(shop, fake)
    shop.close()


def test_every_statement_does_what_the_page_says(world, postgres, pytestconfig):
    if postgres.major < 16:
        pytest.skip(r"psql has \bind since 16")
    page = README.read_text()
    differing = []
    for piece in pieces():
        if isinstance(piece, str):
            world.direct(piece)
            continue
        output = world.play(piece)
        if piece.printed is not None and not piece.prints(output):
            differing.append(f"README.md:{piece.line} prints:\n{output}")
            page = page.replace(f"{piece.script}```\n\n```\n{piece.printed}", f"{piece.script}```\n\n```\n{output}")
    if pytestconfig.getoption("--accept"):
        README.write_text(page)
    elif differing:
        pytest.fail("\n".join(differing), pytrace=False)


def test_the_typescript_is_what_runs_through_a_gateway():
    tried = "".join((ROOT / "tests/gateway/example" / name).read_text() for name in ("payments.ts", "seeds.test.ts"))
    shown = re.findall(r"^```ts\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert shown and all(example in tried for example in shown)


def test_every_function_is_in_the_reference_with_its_arguments(db):
    told = dict(re.findall(r"`(\w+)\(((?:\w+(?:, )?)*)\)`", reference()))
    internal = {"guard_session", "sync_next", "poll_page", "poll_event", "poll_due"}
    there = {row.name: ", ".join(row.arguments) for row in db.execute(PUBLIC) if row.name not in internal}
    # Its argument has no name: a gateway hands over the body whole.
    assert told == {**there, "stripe_webhook": "json"}


def test_every_table_is_in_the_reference(db):
    tables = db.execute(
        "select relname from pg_catalog.pg_class"
        " where relnamespace = 'payments'::regnamespace and relkind in ('r', 'v')"
    )
    assert {table.relname for table in tables} - {"secrets"} <= set(re.findall(r"`(\w+)`", reference()))


def test_every_setting_is_in_the_reference_with_its_default(db):
    told = dict(re.findall(r"^\| `(payments\.\w+)` \| *`?([^|`]*?)`? *\|", reference(), re.MULTILINE))
    with db.connect() as connection:
        connection.execute("load 'payments'")
        there = {
            row.name: row.value
            for row in connection.execute(
                "select name, current_setting(name) as value"
                "  from pg_catalog.pg_settings where name like 'payments.%'"
            )
        }
    assert told == there


def test_the_restricted_key_gets_every_permission_that_is_needed():
    required = (ROOT / "src/stripe/permission.rs").read_text().split("REQUIRED", 1)[1].split("];")[0]
    linked = re.search(r"^\[restricted key\]: (.*)$", README.read_text(), re.MULTILINE)[1]
    assert re.findall(r"permissions\[\]=(\w+)", linked) == re.findall(r'"(rak_\w+)"', required)


def reference() -> str:
    """The chapter that lists what there is."""
    return README.read_text().split("\n## Reference\n")[1].split("\n## ")[0]
