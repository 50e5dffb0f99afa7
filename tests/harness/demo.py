"""`tests/demo.sh`: plays tests/demo.sql on a private server, which it leaves running.

What is not SQL in the story is here: the shop's price at Stripe, the buyer who pays, and
the postman who carries Stripe's events to the gateway, signed as Stripe signs them,
because Stripe cannot reach a server that nobody else can reach. The script runs these
two as `python3 -m harness.demo buyer …` and `… postman`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from harness import TARGET, TESTS, Unmet, command_line, database, extension, output, postgres, say, toolchain
from harness.cluster import Cluster
from harness.database import GATEWAY_ROLES

STATE = TARGET / "demo.json"
"""What runs, so that the next demo, or `stop`, can end it."""

FAKE_LOG = TARGET / "demo-stripe.log"
STRIPE = "https://api.stripe.com"
DATABASE = "shop"


def play() -> None:
    toolchain.prepare()
    installation = postgres.preferred()
    extension.install(installation)
    stop()

    cluster = Cluster(installation)
    state: dict = {"directory": str(cluster.directory), "major": installation.major}
    STATE.write_text(json.dumps(state))
    try:
        say(f"starting {installation.label}")
        cluster.start()
        base = STRIPE
        if "STRIPE_SECRET_KEY" not in os.environ:
            say("starting the fake Stripe (set STRIPE_SECRET_KEY=sk_test_… to play with Stripe itself)")
            base, state["fake"] = _start_fake()
            STATE.write_text(json.dumps(state))
            os.environ["STRIPE_SECRET_KEY"] = "sk_test_demo"
        _tell(cluster, base)
    except BaseException:
        stop()
        raise
    print(
        "\nThe server is still running. Go on with\n"
        f"    {cluster.program('psql')} -h {cluster.directory} -U postgres {DATABASE}\n"
        "and end it with\n"
        "    tests/demo.sh stop"
    )


def _tell(cluster: Cluster, base: str) -> None:
    """Plays the script, with every statement shown, and stops at the first surprise."""
    shop = database.create(cluster, DATABASE, template="template0")
    shop.execute(GATEWAY_ROLES)
    shop.execute(f"alter database {DATABASE} set payments.stripe_api_base = '{base}'")
    shop.disconnect()
    os.environ.update(
        {
            **shop.environment,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STRIPE_API_BASE": base,
            "STRIPE_WEBHOOK_SECRET": "whsec_" + secrets.token_hex(16),
            "DEMO_STARTED": str(int(time.time()) - 1),
        }
    )
    os.environ["STRIPE_PRICE"] = Stripe().price()
    say("tests/demo.sql")
    psql = (cluster.program("psql"), "-X", "-a", "-q", "-v", "ON_ERROR_STOP=1", "-f", TESTS / "demo.sql")
    if subprocess.run(psql).returncode:
        raise Unmet("The story broke off; the last lines above say where.")


def stop() -> None:
    """Ends what an earlier demo left running, if anything."""
    if not STATE.exists():
        return
    state = json.loads(STATE.read_text())
    # The number may be another process's by now.
    if "fake" in state and "fake_stripe" in output("ps", "-o", "args=", "-p", state["fake"]):
        os.kill(state["fake"], signal.SIGTERM)
    [installation] = postgres.at_hand([state["major"]])
    Cluster(installation, directory=Path(state["directory"])).remove()
    STATE.unlink()


def _start_fake() -> tuple[str, int]:
    """Starts the fake Stripe in the background: its address and process id."""
    with FAKE_LOG.open("w") as log:
        fake = subprocess.Popen(
            [sys.executable, "-m", "fake_stripe", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C ends the demo's script, not what the reader goes on with.
            start_new_session=True,
        )
    for _ in range(100):
        said = FAKE_LOG.read_text()
        if address := re.search(r"http://\S+", said):
            return address[0], fake.pid
        if fake.poll() is not None:
            break
        time.sleep(0.1)
    raise Unmet(f"The fake Stripe did not start:\n{FAKE_LOG.read_text()}")


class Stripe:
    """As much of Stripe's API as the story's other actors use."""

    def __init__(self) -> None:
        self._base = os.environ["STRIPE_API_BASE"]
        key = os.environ["STRIPE_SECRET_KEY"]
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
    """Pays for a Checkout Session: the fake's buyer at once, at Stripe the person who watches."""
    stripe = Stripe()
    if os.environ["STRIPE_API_BASE"] == STRIPE:
        url = stripe.get(f"/v1/checkout/sessions/{session}")["url"]
        print(f"\nPay there with card 4242 4242 4242 4242:\n    {url}\n", file=sys.stderr)
        while stripe.get(f"/v1/checkout/sessions/{session}")["status"] == "open":
            time.sleep(2)
    else:
        control = (sys.executable, "-m", "fake_stripe.control", os.environ["STRIPE_API_BASE"], "complete", session)
        subprocess.run(control, check=True, stdout=subprocess.DEVNULL)
    print(f"{session} is {stripe.get(f'/v1/checkout/sessions/{session}')['payment_status']}")


def postman() -> None:
    """Brings every event since the demo began to `api.stripe_webhook`, and says what the gateway answered."""
    secret = os.environ["STRIPE_WEBHOOK_SECRET"].encode()
    for event in Stripe().events():
        payload = json.dumps(event, indent=2)
        now = int(time.time())
        signature = hmac.new(secret, f"{now}.{payload}".encode(), hashlib.sha256).hexdigest()
        with database.request("", headers={"Stripe-Signature": f"t={now},v1={signature}"}) as gateway:
            receipt = gateway.execute("select api.stripe_webhook(%s::json)", (payload,)).fetchone()[0]
            status = gateway.execute("select nullif(current_setting('response.status', true), '')").fetchone()[0]
        print(f"POST /rpc/stripe_webhook  {event['type']:32} {status or 200} {receipt or ''}")


if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or ["play"]
    commands = {"play": play, "stop": stop, "buyer": buyer, "postman": postman}
    command_line(lambda: commands[name](*arguments))
