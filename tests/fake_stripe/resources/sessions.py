"""Checkout Sessions (https://docs.stripe.com/api/checkout/sessions). What the buyer does with them is in `buyer`."""

from __future__ import annotations

import heapq
from typing import Any

from ..api import Call, endpoint, listing, matches, page, page_of
from ..errors import StripeError, invalid
from ..expand import included, listed
from ..schema import (
    Anything,
    Array,
    Boolean,
    Choice,
    Decimal,
    Email,
    Hash,
    Integer,
    Metadata,
    Text,
    Url,
    merged,
    needed,
)
from ..store import Object, Store
from .prices import open_price
from .subscriptions import amount_of

DAY = 24 * 60 * 60
# The least that the currencies we meet can be charged (https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts).
LEAST = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50}


def _line(store: Store, mode: str, position: int, given: dict[str, Any]) -> Object:
    name = f"line_items[{position}]"
    if ("price" in given) == ("price_data" in given):
        raise invalid(
            "You must specify either `price` or `price_data` for each line item.", name + "[price]", "parameter_missing"
        )
    if "price" in given:
        price = store.require("price", given["price"], name + "[price]")
        if not price["active"]:
            raise invalid("The price specified is inactive. This field only accepts active prices.", name + "[price]")
    else:
        price = open_price(store, {**given["price_data"], "active": False})
    if mode == "payment" and price["recurring"]:
        raise invalid(
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use "
            "only one-time prices.",
            name,
        )
    metered = bool(price["recurring"]) and price["recurring"]["usage_type"] == "metered"
    if metered and "quantity" in given:
        raise invalid("You cannot specify a quantity for metered prices.", name + "[quantity]")
    if not metered and "quantity" not in given:
        raise invalid(f"Quantity is required. Add `quantity` to `{name}`", name + "[quantity]")
    quantity = given.get("quantity")
    product = store.get("product", price["product"])
    amount = amount_of(price, quantity)
    return {
        "id": store.ids.make("item"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": product["name"] if product else None,
        "metadata": merged({}, given.get("metadata", {})),
        "price": dict(price),
        "quantity": quantity,
    }


def _whole(given: Object | None, *fields: str) -> Object | None:
    """What was given of a hash, as it is shown: with every field."""
    return None if given is None else {**dict.fromkeys(fields), **given}


def _check_url(given: dict[str, Any]) -> None:
    hosted = given.get("ui_mode", "hosted_page") == "hosted_page"
    if hosted and "success_url" not in given:
        raise invalid("Missing required param: success_url.", "success_url", "parameter_missing")
    if hosted and "return_url" in given:
        raise invalid("`return_url` can only be used when `ui_mode` is not `hosted_page`.", "return_url")
    for field in () if hosted else ("success_url", "cancel_url"):
        if field in given:
            raise invalid(f"`{field}` can only be used when `ui_mode` is `hosted_page`.", field)


def _check_combination(mode: str, given: dict[str, Any]) -> None:
    """Parameters that exclude each other, or that one mode does not have."""
    for one, other in (
        ("customer", "customer_email"),
        ("customer", "customer_creation"),
        ("customer", "customer_account"),
    ):
        if one in given and other in given:
            raise invalid(f"You may only specify one of these parameters: {one}, {other}.", one)
    if "customer_update" in given and "customer" not in given:
        raise invalid("`customer_update` can only be used with `customer`.", "customer_update")
    if given.get("allow_promotion_codes") and "discounts" in given:
        raise invalid(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.", "allow_promotion_codes"
        )
    if given.get("customer_update", {}).get("shipping") == "auto" and "shipping_address_collection" not in given:
        raise invalid(
            "`customer_update[shipping]` can only be set to `auto` when `shipping_address_collection` is enabled.",
            "customer_update[shipping]",
        )
    if "trial_settings" in given.get("subscription_data", {}) and not _trial(given):
        raise invalid(
            "`subscription_data[trial_settings]` can only be set with a trial.", "subscription_data[trial_settings]"
        )
    if len(given.get("custom_fields") or []) > 3:
        raise invalid("Array custom_fields exceeded maximum 3 allowed elements.", "custom_fields")
    elsewhere = {
        "payment": ("subscription_data", "setup_intent_data", "payment_method_collection"),
        "subscription": (
            "payment_intent_data",
            "setup_intent_data",
            "customer_creation",
            "shipping_options",
            "submit_type",
        ),
        "setup": ("payment_intent_data", "subscription_data", "line_items"),
    }
    for field in elsewhere[mode]:
        if field in given:
            raise invalid(f"You can not pass `{field}` in `{mode}` mode.", field)
    if "invoice_creation" in given and mode != "payment":
        raise invalid("You can only enable invoice creation when `mode` is set to `payment`.", "invoice_creation")
    if mode != "setup" and not given.get("line_items"):
        raise invalid("Missing required param: line_items.", "line_items", "parameter_missing")


def _trial(given: dict[str, Any]) -> bool:
    """Whether the subscription begins with a trial."""
    data = given.get("subscription_data", {})
    return bool(data.get("trial_period_days") or data.get("trial_end"))


def _check_customer(customer: Object, given: dict[str, Any]) -> None:
    """What must be allowed to change of a customer who comes again
    (https://docs.stripe.com/tax/checkout#existing-customers).
    """
    update = given.get("customer_update", {})
    if given.get("automatic_tax", {}).get("enabled"):
        if "shipping_address_collection" in given and update.get("shipping") != "auto":
            raise invalid(
                "Automatic tax calculation with shipping address collection in Checkout requires updating shipping "
                "address on the Customer. To enable automatic tax calculation with shipping address collection for an "
                "existing customer, set `customer_update[shipping]` to `auto`.",
                code="customer_tax_location_invalid",
            )
        if not customer.get("address") and "auto" not in (update.get("address"), update.get("shipping")):
            raise invalid(
                "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address "
                "to the Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to "
                "'auto' to save the address entered in Checkout to the Customer.",
                code="customer_tax_location_invalid",
            )
    if given.get("tax_id_collection", {}).get("enabled") and update.get("name") != "auto":
        raise invalid(
            "Tax ID collection requires updating business name on the customer. To enable tax ID collection for an "
            "existing customer, please set `customer_update[name]` to `auto`.",
            "tax_id_collection",
        )


def _check_lines(mode: str, lines: list[Object]) -> None:
    recurring = sum(1 for line in lines if line["price"]["recurring"])
    if mode == "subscription":
        if not recurring:
            raise invalid(
                "You must provide at least one recurring price in `subscription` mode when using prices.", "line_items"
            )
        if recurring > 20 or len(lines) - recurring > 20:
            raise invalid(
                "In `subscription` mode there can be at most 20 recurring and 20 one-time line items.", "line_items"
            )
    if len(lines) > 100:
        raise invalid("Array line_items exceeded maximum 100 allowed elements.", "line_items")
    if len({line["currency"] for line in lines}) > 1:
        raise invalid("All prices on a Checkout Session must use the same currency.", "line_items")
    if len({line["price"]["id"] for line in lines if line["price"]["recurring"]}) < recurring:
        raise invalid("You cannot use the same recurring price in more than one line item.", "line_items")
    total = sum(line["amount_total"] for line in lines)
    least = LEAST.get(lines[0]["currency"], 1)
    if 0 < total < least:
        raise invalid(
            "The Checkout Session's total amount due must add up to at least {} {}.".format(
                least, lines[0]["currency"]
            ),
            code="amount_too_small",
        )


def _expiry(store: Store, given: dict[str, Any]) -> int:
    now = store.clock.now()
    at: int = given.get("expires_at", now + DAY)
    if at < now + 30 * 60:
        raise invalid(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.", "expires_at"
        )
    if at > now + DAY:
        raise invalid(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.", "expires_at"
        )
    return at


@endpoint(
    "POST",
    "/v1/checkout/sessions",
    permission="checkout_session",
    adaptive_pricing=Hash(enabled=Boolean()),
    after_expiration=Anything(),
    allow_promotion_codes=Boolean(),
    allowed_payment_method_types=Array(Text()),
    automatic_tax=Hash(enabled=needed(Boolean()), liability=Anything()),
    billing_address_collection=Choice("auto", "required"),
    branding_settings=Anything(),
    cancel_url=Url(),
    client_reference_id=Text(200),
    consent_collection=Anything(),
    currency=Text(3),
    custom_fields=Anything(),
    custom_text=Anything(),
    customer=Text(),
    customer_account=Text(),
    customer_creation=Choice("always", "if_required"),
    customer_email=Email(),
    customer_update=Hash(
        address=Choice("auto", "never"), name=Choice("auto", "never"), shipping=Choice("auto", "never")
    ),
    discounts=Anything(),
    excluded_payment_method_types=Array(Text()),
    expires_at=Integer(0),
    integration_identifier=Text(),
    invoice_creation=Hash(
        enabled=needed(Boolean()),
        invoice_data=Hash(
            account_tax_ids=Anything(),
            custom_fields=Anything(),
            description=Text(1500),
            footer=Text(),
            issuer=Anything(),
            metadata=Metadata(),
            rendering_options=Anything(),
        ),
    ),
    line_items=Array(
        Hash(
            adjustable_quantity=Anything(),
            metadata=Metadata(),
            price=Text(),
            price_data=Hash(
                currency=needed(Text(3)),
                product=Text(),
                product_data=Hash(
                    description=Text(),
                    images=Array(Text(), most=8),
                    metadata=Metadata(),
                    name=needed(Text(250)),
                    tax_code=Text(),
                    tax_details=Anything(),
                    unit_label=Text(12),
                ),
                recurring=Hash(interval=needed(Choice("day", "month", "week", "year")), interval_count=Integer(1)),
                tax_behavior=Choice("exclusive", "inclusive", "unspecified"),
                unit_amount=Integer(0),
                unit_amount_decimal=Decimal(),
            ),
            quantity=Integer(0, 999999),
            tax_rates=Array(Text()),
        ),
    ),
    locale=Text(10),
    managed_payments=Anything(),
    metadata=Metadata(),
    mode=needed(Choice("payment", "setup", "subscription")),
    name_collection=Anything(),
    optional_items=Anything(),
    origin_context=Choice("mobile_app", "web"),
    payment_intent_data=Hash(
        application_fee_amount=Integer(0),
        capture_method=Choice("automatic", "automatic_async", "manual"),
        description=Text(1000),
        metadata=Metadata(),
        on_behalf_of=Text(),
        receipt_email=Email(),
        setup_future_usage=Choice("off_session", "on_session"),
        shipping=Anything(),
        statement_descriptor=Text(22),
        statement_descriptor_suffix=Text(22),
        transfer_data=Anything(),
        transfer_group=Text(),
    ),
    payment_method_collection=Choice("always", "if_required"),
    payment_method_configuration=Text(100),
    payment_method_data=Anything(),
    payment_method_options=Anything(),
    payment_method_types=Anything(),
    permissions=Anything(),
    phone_number_collection=Hash(enabled=needed(Boolean())),
    redirect_on_completion=Choice("always", "if_required", "never"),
    return_url=Url(),
    saved_payment_method_options=Anything(),
    setup_intent_data=Anything(),
    shipping_address_collection=Anything(),
    shipping_options=Anything(),
    submit_type=Choice("auto", "book", "donate", "pay", "subscribe"),
    subscription_data=Hash(
        application_fee_percent=Decimal(),
        billing_cycle_anchor=Integer(),
        billing_cycle_anchor_config=Anything(),
        billing_mode=Anything(),
        default_tax_rates=Array(Text()),
        description=Text(500),
        invoice_settings=Anything(),
        metadata=Metadata(),
        on_behalf_of=Text(),
        pending_invoice_item_interval=Anything(),
        proration_behavior=Choice("create_prorations", "none"),
        transfer_data=Anything(),
        trial_end=Integer(),
        trial_period_days=Integer(1, 730),
        trial_settings=Anything(),
    ),
    success_url=Url(),
    tax_id_collection=Hash(enabled=needed(Boolean()), required=Choice("if_supported", "never")),
    ui_mode=Choice("elements", "embedded_page", "form", "hosted_page"),
    wallet_options=Anything(),
)
def create(call: Call) -> Object:
    store, given = call.store, call.params
    mode = given["mode"]
    if "payment_method_types" in given:
        raise StripeError(
            400,
            "`payment_method_types` is no longer supported as of API version 2026-09-30.endive. Use "
            "`allowed_payment_method_types` instead.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    _check_url(given)
    _check_combination(mode, given)
    expires_at = _expiry(store, given)
    customer = store.require("customer", given["customer"], "customer") if "customer" in given else None
    if customer:
        _check_customer(customer, given)
    lines = [_line(store, mode, position, line) for position, line in enumerate(given.get("line_items", []))]
    if lines:
        _check_lines(mode, lines)
    total = sum(line["amount_total"] for line in lines)
    if _trial(given):
        total = sum(line["amount_total"] for line in lines if not line["price"]["recurring"])
    tax = given.get("automatic_tax", {}).get("enabled", False)
    email = customer["email"] if customer else given.get("customer_email")
    hosted = given.get("ui_mode", "hosted_page") == "hosted_page"
    invoicing = given.get("invoice_creation", {})
    session = store.new(
        "checkout.session",
        adaptive_pricing={"enabled": given.get("adaptive_pricing", {}).get("enabled", True)},
        after_expiration=given.get("after_expiration"),
        allow_promotion_codes=given.get("allow_promotion_codes"),
        allowed_payment_method_types=given.get("allowed_payment_method_types"),
        amount_subtotal=total,
        amount_total=total,
        automatic_tax={
            "enabled": tax,
            "liability": {"type": "self"} if tax else None,
            "provider": "stripe" if tax else None,
            "status": "requires_location_inputs" if tax else None,
        },
        billing_address_collection=given.get("billing_address_collection"),
        cancel_url=given.get("cancel_url"),
        client_reference_id=given.get("client_reference_id"),
        client_secret=None,
        collected_information=None,
        consent=None,
        consent_collection=_whole(
            given.get("consent_collection"), "payment_method_reuse_agreement", "promotions", "terms_of_service"
        ),
        currency=lines[0]["currency"] if lines else given.get("currency"),
        currency_conversion=None,
        custom_fields=[{"optional": False, **field} for field in given.get("custom_fields") or []],
        custom_text={
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
            **(given.get("custom_text") or {}),
        },
        customer=customer["id"] if customer else None,
        customer_account=None,
        customer_creation=None
        if customer
        else given.get("customer_creation", "always" if mode == "subscription" else "if_required"),
        customer_details={
            "address": None,
            "business_name": None,
            "email": email,
            "individual_name": None,
            "name": None,
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": None,
        }
        if email
        else None,
        customer_email=given.get("customer_email"),
        discounts=[],
        expires_at=expires_at,
        integration_identifier=given.get("integration_identifier"),
        invoice=None,
        invoice_creation={
            "enabled": invoicing.get("enabled", False),
            "invoice_data": {
                "account_tax_ids": None,
                "custom_fields": None,
                "description": None,
                "footer": None,
                "issuer": None,
                "metadata": {},
                "rendering_options": None,
                **invoicing.get("invoice_data", {}),
            },
        }
        if mode == "payment"
        else None,
        locale=given.get("locale"),
        managed_payments={"enabled": False},
        metadata=merged({}, given.get("metadata", {})),
        mode=mode,
        origin_context=given.get("origin_context"),
        payment_intent=None,
        payment_link=None,
        payment_method_collection=given.get("payment_method_collection", "always")
        if mode == "subscription"
        else "if_required",
        payment_method_configuration_details=None,
        payment_method_options={"card": {"request_three_d_secure": "automatic"}},
        payment_method_types=["card"],
        payment_status="no_payment_required" if mode == "setup" else "unpaid",
        permissions=None,
        phone_number_collection={"enabled": given.get("phone_number_collection", {}).get("enabled", False)},
        recovered_from=None,
        saved_payment_method_options={
            "allow_redisplay_filters": ["always"],
            "payment_method_remove": "disabled",
            "payment_method_save": None,
        }
        if customer
        else None,
        setup_intent=None,
        shipping_address_collection=given.get("shipping_address_collection"),
        shipping_cost=None,
        shipping_options=[],
        status="open",
        submit_type=given.get("submit_type"),
        subscription=None,
        success_url=given.get("success_url"),
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0} if lines else None,
        ui_mode=given.get("ui_mode", "hosted_page"),
        url=None,
        wallet_options=None,
    )
    if hosted:
        session["url"] = "https://checkout.stripe.com/c/pay/{}#{}".format(session["id"], store.ids.text(60))
    else:
        session["client_secret"] = "{}_secret_{}".format(session["id"], store.ids.text(60))
        session["return_url"] = given.get("return_url")
    if "tax_id_collection" in given:
        session["tax_id_collection"] = {"enabled": given["tax_id_collection"]["enabled"], "required": "never"}
    store.notes[session["id"]] = {
        "lines": lines,
        "payment_intent_data": given.get("payment_intent_data", {}),
        "subscription_data": given.get("subscription_data", {}),
    }
    heapq.heappush(store.deadlines, (expires_at, session["id"]))
    return store.add(session)


def expire_session(store: Store, session: Object) -> Object:
    """Its page is closed for good."""
    if session["status"] != "open":
        raise invalid(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
            "{}.".format(session["status"])
        )
    store.change(session, status="expired", url=None)
    store.emit("checkout.session.expired", session)
    return session


def expire_overdue(store: Store) -> None:
    """Close every open session whose time is up, as Stripe does by itself."""
    while store.deadlines and store.deadlines[0][0] <= store.clock.now():
        session = store.require("checkout.session", heapq.heappop(store.deadlines)[1])
        if session["status"] == "open":
            expire_session(store, session)


@included("checkout.session", "line_items")
def _line_items(store: Store, session: Object) -> Object:
    lines = store.notes[session["id"]]["lines"]
    return listed(lines[:10], "/v1/checkout/sessions/{}/line_items".format(session["id"]), len(lines) > 10)


@endpoint("GET", "/v1/checkout/sessions/{id}", permission="checkout_session")
def retrieve(call: Call) -> Object:
    return call.store.require("checkout.session", call.id)


@endpoint("POST", "/v1/checkout/sessions/{id}", permission="checkout_session", metadata=Metadata())
def update(call: Call) -> Object:
    session = call.store.require("checkout.session", call.id)
    # No event tells of this: there is no checkout.session.updated.
    return call.store.change(session, metadata=merged(session["metadata"], call.get("metadata", {})))


@endpoint("POST", "/v1/checkout/sessions/{id}/expire", permission="checkout_session")
def expire(call: Call) -> Object:
    return expire_session(call.store, call.store.require("checkout.session", call.id))


@endpoint(
    "GET",
    "/v1/checkout/sessions/{id}/line_items",
    permission="checkout_session",
    limit=Integer(1, 100),
    starting_after=Text(),
    ending_before=Text(),
)
def line_items(call: Call) -> Object:
    session = call.store.require("checkout.session", call.id)
    return page_of(call, call.store.notes[session["id"]]["lines"])


@endpoint(
    "GET",
    "/v1/checkout/sessions",
    permission="checkout_session",
    **listing(
        customer=Text(),
        customer_account=Text(),
        customer_details=Hash(email=needed(Text())),
        payment_intent=Text(),
        payment_link=Text(),
        status=Choice("complete", "expired", "open"),
        subscription=Text(),
    ),
)
def index(call: Call) -> Object:
    alike = matches(call, "customer", "payment_intent", "payment_link", "status", "subscription")
    email = call.get("customer_details", {}).get("email")
    return page(
        call,
        "checkout.session",
        lambda session: alike(session) and (not email or (session["customer_details"] or {}).get("email") == email),
    )
