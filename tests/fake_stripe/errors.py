"""The errors Stripe answers with, in its own words (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any


class StripeError(Exception):
    """An answer that is an error: raised anywhere, rendered once."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        error: dict[str, Any] = {"code": code, "message": message, "param": param, "type": type, **more}
        if code:
            error["doc_url"] = "https://stripe.com/docs/error-codes/" + code.replace("_", "-")
        self.error = {name: value for name, value in sorted(error.items()) if value is not None}

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {"error": self.error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    """400: a parameter, or a combination of them, that Stripe refuses."""
    return StripeError(400, message, param=param, code=code)


def no_such(kind: str, identifier: str, param: str = "id", elsewhere: bool | None = None) -> StripeError:
    """An id that leads nowhere: 404 in a path, 400 in a parameter.

    `elsewhere` is the livemode in which the object does exist, which Stripe gives away.
    """
    word = {"checkout.session": "checkout.session", "payment_intent": "payment_intent"}.get(kind, kind.split(".")[-1])
    message = f"No such {word}: '{identifier}'"
    if elsewhere is not None:
        there, here = ("live", "test") if elsewhere else ("test", "live")
        message += f"; a similar object exists in {there} mode, but a {here} mode key was used to make this request."
    return StripeError(404 if param == "id" else 400, message, code="resource_missing", param=param)


def masked(key: str) -> str:
    """A key as Stripe shows it: everything but its kind and its end hidden."""
    return key[:8] + "*" * max(len(key) - 12, 4) + key[-4:]


def no_key() -> StripeError:
    """401: no Authorization header."""
    return StripeError(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        "auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for "
        "details, or we can help at https://support.stripe.com/.",
        headers={"WWW-Authenticate": 'Bearer realm="Stripe"'},
    )


def unknown_key(key: str) -> StripeError:
    """401: a key that no account has."""
    return StripeError(401, "Invalid API Key provided: " + masked(key))


def expired_key(key: str) -> StripeError:
    """401: a key that was rolled or revoked."""
    return StripeError(401, "Expired API Key provided: " + masked(key), code="api_key_expired")


def publishable_key() -> StripeError:
    """401: a browser's key where the server's is needed."""
    return StripeError(
        401,
        "This API call cannot be made with a publishable API key. Please use a secret API key. You can find a list "
        "of your API keys at https://dashboard.stripe.com/account/apikeys.",
        code="secret_key_required",
    )


def not_permitted(key: str, account: str, permission: str) -> StripeError:
    """403: a restricted key without the permission this endpoint needs."""
    return StripeError(
        403,
        f"The provided key '{masked(key)}' does not have the required permissions for this endpoint on account "
        f"'{account}'. Having the 'rak_{permission}' permission would allow this request to continue.",
    )


def unknown_url(method: str, path: str) -> StripeError:
    """404: not an endpoint."""
    return StripeError(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
    )


def rate_limited(retry_after: float | None = None, should_retry: bool | None = None) -> StripeError:
    """429: too many requests."""
    headers = {"Stripe-Rate-Limited-Reason": "global-rate"}
    if retry_after is not None:
        headers["Retry-After"] = f"{retry_after:g}"
    if should_retry is not None:
        headers["Stripe-Should-Retry"] = "true" if should_retry else "false"
    return StripeError(
        429,
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        code="rate_limit",
        headers=headers,
    )


def server_error(status: int = 500, should_retry: bool | None = None) -> StripeError:
    """500 and above: Stripe's own failure."""
    headers = {} if should_retry is None else {"Stripe-Should-Retry": "true" if should_retry else "false"}
    return StripeError(
        status,
        "An unknown error occurred. If you have any questions, please contact us at https://support.stripe.com/.",
        type="api_error",
        headers=headers,
    )


def card_declined(charge: str | None = None, decline_code: str = "generic_decline") -> StripeError:
    """402: the bank said no."""
    return StripeError(
        402,
        "Your card was declined.",
        type="card_error",
        code="card_declined",
        decline_code=decline_code,
        charge=charge,
    )
