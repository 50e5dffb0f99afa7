"""Signing and posting events as Stripe does (https://docs.stripe.com/webhooks)."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

HEADERS = {
    "Accept": "*/*; q=0.5, application/xml",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
}


def sign(body: str, secrets: Sequence[str], timestamp: int | None = None, style: str = "plain") -> str:
    """The `Stripe-Signature` of a body, with one `v1` a secret.

    `timestamp` is now by the machine's clock unless told, as it is the receiver's clock that judges its age. Styles
    other than `plain`: legal are `v0` (a scheme to ignore), `reordered` (`t` last) and `first_wrong` (a wrong `v1`
    before the right ones); not so `only_v0`, `no_timestamp`, `wrong` (signs something else) and `spaced` (blanks after
    the commas, which Stripe's own libraries do not trim).
    """
    at = int(time.time()) if timestamp is None else timestamp
    signed = f"{at}.{body}" + ("tampered" if style == "wrong" else "")
    parts = [f"t={at}"]
    parts += ["v1=" + hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest() for secret in secrets]
    if style == "v0":
        parts.append("v0=" + "6" * 64)
    elif style == "reordered":
        parts = parts[1:] + parts[:1]
    elif style == "first_wrong":
        parts.insert(1, "v1=" + "0" * 64)
    elif style == "only_v0":
        parts = [part.replace("v1=", "v0=") for part in parts]
    elif style == "no_timestamp":
        parts = parts[1:]
    return (", " if style == "spaced" else ",").join(parts)


def text(event: dict[str, Any]) -> str:
    """An event exactly as it is sent: indented by two, in UTF-8."""
    return json.dumps(event, indent=2, ensure_ascii=False)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Stripe takes a redirect for a failure."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(
    url: str, body: str, signature: str, timeout: float = 30, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    """Post an event once: `{status, body}`, where status is None if nobody answered."""
    request = urllib.request.Request(
        url, body.encode("utf-8"), {**HEADERS, "Stripe-Signature": signature, **(headers or {})}, method="POST"
    )
    # Proxies of the environment are not Stripe's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=timeout) as answer:
            return {"status": answer.status, "body": answer.read().decode("utf-8", "replace")}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode("utf-8", "replace")}
    except OSError as error:
        return {"status": None, "body": str(error)}


def post_until_accepted(
    url: str,
    body: str,
    secrets: Sequence[str],
    retries: int = 0,
    pause: float = 0.0,
    headers: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Post an event, again after anything but a 2xx, signed afresh each time: the list of attempts."""
    attempts: list[dict[str, Any]] = []
    while True:
        attempts.append(post(url, body, sign(body, secrets), headers=headers))
        status = attempts[-1]["status"]
        if (status is not None and 200 <= status < 300) or len(attempts) > retries:
            return attempts
        time.sleep(pause)
