"""`tests/demo.sh`: plays tests/demo.sql on a private server, which it leaves running.

What is not SQL in the story is here: the shop's price at Stripe, the buyer who pays, and
the postman who carries Stripe's events to the gateway, signed as Stripe signs them,
because Stripe cannot reach a server that nobody else can reach. The script runs these
two as `python3 -m harness.demo buyer …` and `… postman`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from fake_stripe import webhooks
from fake_stripe.control import RemoteControl
from harness import TARGET, TESTS, Unmet, command_line, database, extension, output, postgres, say, toolchain
from harness.cluster import Cluster
from harness.database import GATEWAY_ROLES, Database

STATE = TARGET / "demo.json"
"""What runs, so that the next demo, or `stop`, can end it."""

DATABASE = "shop"


def play() -> None:
    """Builds, starts and plays; whatever breaks off leaves nothing running."""
    toolchain.prepare()
    installation = postgres.preferred()
    extension.install(installation)
    stop()

    cluster = Cluster(installation)
    running: dict = {"major": installation.major, "directory": str(cluster.directory)}
    STATE.write_text(json.dumps(running))
    try:
        say(f"starting {installation.label}")
        cluster.start()
        if key := os.environ.get("STRIPE_SECRET_KEY"):
            if not key.startswith(("sk_test_", "rk_test_")):
                raise Unmet("STRIPE_SECRET_KEY must be a test key, sk_test_…: the demo buys something.")
            stripe = {"STRIPE_SECRET_KEY": key, "STRIPE_API_BASE": "https://api.stripe.com"}
        else:
            say("starting the fake Stripe (STRIPE_SECRET_KEY=sk_test_… tests/demo.sh plays with Stripe itself)")
            fake = start_fake(cluster.directory / "stripe.json")
            running["fake"] = fake.pid
            STATE.write_text(json.dumps(running))
            stripe = environment_of(fake, cluster.directory / "stripe.json")
        shop = database.create(cluster, DATABASE, template="template0")
        shop.execute(GATEWAY_ROLES)
        say("tests/demo.sql")
        _tell(shop, stripe)
    except BaseException:
        stop()
        raise
    print(
        "\nThe server is still running. Go on with\n"
        f"    {cluster.program('psql')} -h {cluster.directory} -U postgres {DATABASE}\n"
        "and end it with\n"
        "    tests/demo.sh stop"
    )


def start_fake(ready: Path) -> subprocess.Popen[bytes]:
    """Starts a fake Stripe in the background, which says of itself in the file `ready` where it is."""
    with ready.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fake_stripe", "--ready-file", str(ready)],
            # It outlives the demo: it may neither hold its output open nor hear its Ctrl-C.
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def environment_of(fake: subprocess.Popen[bytes], ready: Path) -> dict[str, str]:
    """Waits for a fake Stripe: the environment in which the story is played with it."""
    while not ready.exists():
        if fake.poll() is not None:
            raise Unmet(f"The fake Stripe did not start:\n{ready.with_suffix('.log').read_text()}")
        time.sleep(0.05)
    said = json.loads(ready.read_text())
    return {
        "STRIPE_SECRET_KEY": said["test_key"],
        "STRIPE_API_BASE": said["base_url"],
        "FAKE_STRIPE_CONTROL": said["control_url"],
    }


def perform(shop: Database, stripe: dict[str, str]) -> subprocess.Popen[str]:
    """Starts psql on the script, in a database without the extension: every statement shown, up to the first error."""
    shop.execute(f"alter database {shop.name} set payments.stripe_api_base = '{stripe['STRIPE_API_BASE']}'")
    shop.disconnect()
    environment = {
        **os.environ,
        **shop.environment,
        **stripe,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(TESTS),
        "STRIPE_WEBHOOK_SECRET": "whsec_" + secrets.token_hex(16),
        "STRIPE_PRICE": Stripe(stripe).price(),
        "DEMO_STARTED": str(int(time.time()) - 1),
    }
    with (TESTS / "demo.sql").open() as script:
        return subprocess.Popen(
            [shop.cluster.program("psql"), "-X", "-a", "-q", "-v", "ON_ERROR_STOP=1"],
            env=environment,
            stdin=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _tell(shop: Database, stripe: dict[str, str]) -> None:
    with perform(shop, stripe) as playing:
        _show(playing.stdout)
    if playing.returncode:
        raise Unmet("The story broke off; the last lines above say where.")


def _show(lines: Iterable[str]) -> None:
    """Prints what psql says, with the air before each paragraph of the story that psql takes out."""
    last = ""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    for line in lines:
        comment = line.startswith("--") and not line.startswith("---")
        if comment and last.strip() and not last.startswith("--"):
            print()
        print(f"{bold}{line.rstrip()}{plain}" if comment else line.rstrip(), flush=True)
        last = line


def stop() -> None:
    """Ends what an earlier demo left running, if anything."""
    if not STATE.exists():
        return
    running = json.loads(STATE.read_text())
    # The number may be another process's by now.
    if "fake" in running and "fake_stripe" in output("ps", "-o", "args=", "-p", running["fake"]):
        os.kill(running["fake"], signal.SIGTERM)
    [installation] = postgres.at_hand([running["major"]])
    Cluster(installation, directory=Path(running["directory"])).remove()
    STATE.unlink()


class Stripe:
    """As much of Stripe's API as the story's other actors use."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._base = environment["STRIPE_API_BASE"]
        key = environment["STRIPE_SECRET_KEY"]
        self._authorization = "Basic " + base64.b64encode(f"{key}:".encode()).decode()

    def get(self, path: str) -> dict:
        return self._call(path, None)

    def post(self, path: str, **parameters: object) -> dict:
        return self._call(path, urllib.parse.urlencode(parameters).encode())

    def _call(self, path: str, body: bytes | None) -> dict:
        request = urllib.request.Request(self._base + path, body, {"Authorization": self._authorization})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            raise Unmet(f"Stripe refused {path}: {refusal.read().decode(errors='replace')}") from None

    def price(self) -> str:
        """The id of a price of 19.00 USD, the same in every demo of one account."""
        known = self.get("/v1/prices?lookup_keys[]=payments_demo")["data"]
        if known:
            return known[0]["id"]
        product = self.post("/v1/products", name="A good book")
        price = {"product": product["id"], "currency": "usd", "unit_amount": 1900, "lookup_key": "payments_demo"}
        return self.post("/v1/prices", **price)["id"]

    def events(self) -> list[dict]:
        """What happened since the demo began, oldest first."""
        return self.get(f"/v1/events?limit=100&created[gte]={os.environ['DEMO_STARTED']}")["data"][::-1]


def buyer(session: str) -> None:
    """Pays for a Checkout Session: the fake's buyer at once, at Stripe whoever watches the demo."""
    stripe = Stripe()
    if control := os.environ.get("FAKE_STRIPE_CONTROL"):
        RemoteControl(control).complete(session=session)
    else:
        url = stripe.get(f"/v1/checkout/sessions/{session}")["url"]
        print(f"\nPay there with card 4242 4242 4242 4242:\n    {url}\n", file=sys.stderr)
    while (paid := stripe.get(f"/v1/checkout/sessions/{session}"))["status"] == "open":
        time.sleep(2)
    print(f"status {paid['status']}, payment_status {paid['payment_status']}")


def postman() -> None:
    """Brings every event since the demo began to `api.stripe_webhook`, and says what the gateway answered."""
    for event in Stripe().events():
        body = webhooks.text(event)
        signature = webhooks.sign(body, [os.environ["STRIPE_WEBHOOK_SECRET"]])
        with database.request("", headers={"Stripe-Signature": signature}) as gateway:
            gateway.execute("select api.stripe_webhook(%s::json)", (body,))
            status = gateway.execute("select current_setting('response.status', true)").fetchone()[0]
        print(f"POST /rpc/stripe_webhook  {event['type']}  → {status or 200}")


if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or ["play"]
    commands = {"play": play, "stop": stop, "buyer": buyer, "postman": postman}
    command_line(lambda: commands[name](*arguments))
