// Stripe's official client is the judge of the fake: it must not notice the difference.
// FAKE_BASE_URL and FAKE_CONTROL_URL say where the fake listens.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import Stripe from 'stripe';

const base = new URL(process.env.FAKE_BASE_URL);

async function control(action, args = {}) {
  const answer = await fetch(`${process.env.FAKE_CONTROL_URL}/_fake/${action}`, {
    method: 'POST',
    body: JSON.stringify(args),
  });
  const result = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(result));
  return result;
}

const about = await control('about');

function client(key = about.test_key, options = {}) {
  return new Stripe(key, {
    host: base.hostname,
    port: base.port,
    protocol: base.protocol.slice(0, -1),
    maxNetworkRetries: 0,
    ...options,
  });
}

const stripe = client();

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail('the call was not refused');
}

async function openSession(params = {}) {
  const price = await control('price', { unit_amount: 1900 });
  return stripe.checkout.sessions.create({
    mode: 'payment',
    line_items: [{ price: price.id, quantity: 2 }],
    success_url: 'https://shop.example/done?session={CHECKOUT_SESSION_ID}',
    cancel_url: 'https://shop.example/cart',
    ...params,
  });
}

beforeEach(() => control('reset'));

test('the account behind a key', async () => {
  const account = await stripe.accounts.retrieveCurrent();
  assert.equal(account.id, about.account);
});

test('create, retrieve, update and delete', async () => {
  const customer = await stripe.customers.create({
    email: 'jenny@example.com',
    name: 'Jenny & Söhne',
    metadata: { team: 'a', seats: 3 },
  });
  assert.match(customer.id, /^cus_\w{14}$/);
  assert.deepEqual({ ...customer.metadata }, { team: 'a', seats: '3' });
  assert.equal(customer.lastResponse.apiVersion, '2026-10-28.endive');

  const updated = await stripe.customers.update(customer.id, { name: '', metadata: { team: '' } });
  assert.equal(updated.name, null);
  assert.deepEqual({ ...updated.metadata }, { seats: '3' });
  assert.equal((await stripe.customers.retrieve(customer.id)).email, 'jenny@example.com');

  assert.equal((await stripe.customers.del(customer.id)).deleted, true);
  assert.deepEqual({ ...(await stripe.customers.retrieve(customer.id)) }, {
    id: customer.id,
    object: 'customer',
    deleted: true,
  });
});

test('auto-paging visits every object once, newest first', async () => {
  const made = [];
  for (let i = 0; i < 25; i++) {
    made.push((await stripe.customers.create({ description: String(i) })).id);
  }
  const seen = [];
  for await (const customer of stripe.customers.list({ limit: 10 })) {
    seen.push(customer.id);
  }
  assert.deepEqual(seen, made.toReversed());

  const backwards = await stripe.customers.list({ limit: 5, ending_before: made[0] });
  assert.deepEqual(backwards.data.map((c) => c.id), made.slice(1, 6).toReversed());
  assert.equal(backwards.has_more, true);
});

test('lists filter by creation and by lookup keys', async () => {
  const now = await control('clock', { freeze: true });
  await stripe.customers.create({ name: 'old' });
  await control('clock', { advance: 100 });
  await stripe.customers.create({ name: 'new' });
  const names = async (created) => (await stripe.customers.list({ created })).data.map((c) => c.name);
  assert.deepEqual(await names({ gt: now }), ['new']);
  assert.deepEqual(await names({ lt: now + 100 }), ['old']);
  assert.deepEqual(await names(now), ['old']);

  await control('price', { unit_amount: 1900, interval: 'month', lookup_key: 'pro' });
  await control('price', { unit_amount: 900, interval: 'month', lookup_key: 'basic' });
  const found = await stripe.prices.list({ lookup_keys: ['pro'], expand: ['data.product'] });
  assert.deepEqual(found.data.map((p) => [p.lookup_key, p.unit_amount, p.product.object]), [['pro', 1900, 'product']]);
  assert.equal(found.data[0].unit_amount_decimal.toString(), '1900');
});

test('an idempotent request is replayed, and refused when it changed', async () => {
  const options = { idempotencyKey: 'key-1' };
  const first = await stripe.customers.create({ name: 'a' }, options);
  const again = await stripe.customers.create({ name: 'a' }, options);
  assert.equal(again.id, first.id);
  assert.equal(again.lastResponse.headers['idempotent-replayed'], 'true');
  assert.equal(again.lastResponse.headers['original-request'], first.lastResponse.requestId);

  const error = await refused(stripe.customers.create({ name: 'b' }, options));
  assert.ok(error instanceof Stripe.errors.StripeIdempotencyError);
  assert.match(error.message, /can only be used with the same parameters/);
});

test('parameters are refused as Stripe refuses them', async () => {
  const unknown = await refused(stripe.customers.create({ nickname: 'x' }));
  assert.ok(unknown instanceof Stripe.errors.StripeInvalidRequestError);
  assert.deepEqual([unknown.statusCode, unknown.code, unknown.param], [400, 'parameter_unknown', 'nickname']);

  const missing = await refused(stripe.prices.create({ unit_amount: 1 }));
  assert.deepEqual([missing.code, missing.param], ['parameter_missing', 'currency']);

  const nested = await refused(openSession({ line_items: [{ price: 'price_none', quantity: 1 }] }));
  assert.deepEqual(
    [nested.statusCode, nested.code, nested.param],
    [400, 'resource_missing', 'line_items[0][price]'],
  );
  assert.equal((await refused(stripe.customers.retrieve('cus_none'))).statusCode, 404);
});

test('keys and permissions', async () => {
  const nobody = await refused(client('sk_test_nobody000000000000').customers.list());
  assert.ok(nobody instanceof Stripe.errors.StripeAuthenticationError);

  const key = 'rk_test_restricted0000000000001234';
  await control('add_key', { key, permissions: ['customer_write'] });
  const restricted = client(key);
  await restricted.customers.create({ name: 'allowed' });
  await restricted.customers.list();
  const error = await refused(restricted.accounts.retrieveCurrent());
  assert.ok(error instanceof Stripe.errors.StripePermissionError);
  assert.match(error.message, /on account 'acct_\w+'\. Having the 'rak_accounts_kyc_basic_read' permission/);

  const live = client(about.live_key);
  assert.deepEqual((await live.customers.list()).data, []);
});

test('rate limits, declined cards and outages have their classes', async () => {
  await control('fault', { kind: 'rate_limit', retry_after: 1 });
  const limited = await refused(stripe.customers.list());
  assert.ok(limited instanceof Stripe.errors.StripeRateLimitError);
  assert.equal(limited.headers['retry-after'], '1');

  await control('fault', { kind: 'card_declined' });
  const declined = await refused(stripe.customers.create());
  assert.ok(declined instanceof Stripe.errors.StripeCardError);
  assert.deepEqual([declined.code, declined.decline_code], ['card_declined', 'generic_decline']);

  await control('fault', { kind: 'server_error', status: 503 });
  assert.ok((await refused(stripe.customers.list())) instanceof Stripe.errors.StripeAPIError);

  // The client tries a closed connection once more, whatever it was told about retries.
  await control('fault', { kind: 'drop', times: 2 });
  assert.ok((await refused(stripe.customers.list())) instanceof Stripe.errors.StripeConnectionError);
});

test('the client retries through an outage and gets one object', async () => {
  await control('fault', { kind: 'drop', method: 'POST' });
  const customer = await client(about.test_key, { maxNetworkRetries: 2 }).customers.create({ name: 'once' });
  assert.equal(customer.lastResponse.headers['idempotent-replayed'], 'true');
  assert.equal((await stripe.customers.list()).data.length, 1);
});

test('a stored 500 says that a retry is useless', async () => {
  await control('fault', { kind: 'server_error', stored: true });
  await refused(client(about.test_key, { maxNetworkRetries: 2 }).customers.create({ name: 'never' }));
  assert.equal((await control('requests', { path: '/v1/customers' })).length, 1);
});

test('a payment', async () => {
  const session = await openSession({
    metadata: { order: '7' },
    payment_intent_data: { metadata: { order: '7' } },
    customer_creation: 'always',
  });
  assert.match(session.id, /^cs_test_\w+$/);
  assert.match(session.url, /^https:\/\/checkout\.stripe\.com\//);
  assert.equal(session.success_url, 'https://shop.example/done?session={CHECKOUT_SESSION_ID}');
  assert.deepEqual([session.status, session.payment_status, session.amount_total], ['open', 'unpaid', 3800]);

  await control('complete', { session: session.id, email: 'buyer@example.com' });
  const paid = await stripe.checkout.sessions.retrieve(session.id, {
    expand: ['line_items', 'customer', 'payment_intent.latest_charge.refunds'],
  });
  assert.deepEqual([paid.status, paid.payment_status, paid.url], ['complete', 'paid', null]);
  assert.equal(paid.customer.email, 'buyer@example.com');
  assert.equal(paid.line_items.data[0].quantity, 2);
  assert.equal(paid.payment_intent.metadata.order, '7');
  assert.equal(paid.payment_intent.latest_charge.amount_captured, 3800);
  assert.deepEqual(paid.payment_intent.latest_charge.refunds.data, []);

  const refund = await stripe.refunds.create({ payment_intent: paid.payment_intent.id, amount: 800 });
  const charge = await stripe.charges.retrieve(refund.charge);
  assert.deepEqual([charge.amount_refunded, charge.refunded], [800, false]);
  const tooMuch = await refused(stripe.refunds.create({ charge: charge.id, amount: 3001 }));
  assert.equal(tooMuch.param, 'amount');
});

test('a subscription', async () => {
  const price = await control('price', { unit_amount: 1900, interval: 'month' });
  const session = await stripe.checkout.sessions.create({
    mode: 'subscription',
    line_items: [{ price: price.id, quantity: 3 }],
    success_url: 'https://shop.example/done',
    subscription_data: { metadata: { team: 'a' } },
  });
  await control('complete', { session: session.id });
  const done = await stripe.checkout.sessions.retrieve(session.id, { expand: ['subscription.latest_invoice.payments'] });
  const subscription = done.subscription;
  assert.equal(subscription.status, 'active');
  assert.equal(subscription.current_period_end, undefined);
  assert.ok(subscription.items.data[0].current_period_end > subscription.created);
  const invoice = subscription.latest_invoice;
  assert.equal(invoice.payment_intent, undefined);
  assert.equal(invoice.parent.subscription_details.subscription, subscription.id);
  assert.equal(invoice.parent.subscription_details.metadata.team, 'a');
  assert.match(invoice.payments.data[0].payment.payment_intent, /^pi_/);

  const listed = await stripe.invoicePayments.list({
    payment: { type: 'payment_intent', payment_intent: invoice.payments.data[0].payment.payment_intent },
  });
  assert.equal(listed.data[0].invoice, invoice.id);

  const portal = await stripe.billingPortal.sessions.create({
    customer: done.customer,
    return_url: 'https://shop.example/account',
    flow_data: { type: 'subscription_cancel', subscription_cancel: { subscription: subscription.id } },
  });
  assert.equal(portal.flow.subscription_cancel.subscription, subscription.id);

  const ending = await stripe.subscriptions.update(subscription.id, { cancel_at_period_end: true });
  assert.equal(ending.cancel_at, subscription.items.data[0].current_period_end);
  assert.equal((await stripe.subscriptions.cancel(subscription.id)).status, 'canceled');
  assert.equal((await stripe.subscriptions.list()).data.length, 0);
  assert.equal((await stripe.subscriptions.list({ status: 'all' })).data.length, 1);
});

test('webhooks verify, whichever legal shape the header has', async () => {
  const session = await openSession();
  await control('complete', { session: session.id });
  // A reset makes a new default secret.
  const secret = (await control('about')).webhook_secret;
  assert.notEqual(secret, about.webhook_secret);
  const delivered = await control('deliveries');
  assert.equal(delivered.at(-1).type, 'checkout.session.completed');
  for (const { body, signature, id } of delivered) {
    assert.equal(stripe.webhooks.constructEvent(body, signature, secret).id, id);
  }
  const { id } = delivered.at(-1);
  for (const style of ['v0', 'reordered', 'first_wrong']) {
    const { body, signature } = await control('delivery', { event: id, style });
    assert.equal(stripe.webhooks.constructEvent(body, signature, secret).id, id, style);
  }
  for (const style of ['wrong', 'only_v0', 'no_timestamp', 'spaced']) {
    const { body, signature } = await control('delivery', { event: id, style });
    assert.throws(() => stripe.webhooks.constructEvent(body, signature, secret), Stripe.errors.StripeSignatureVerificationError);
  }
  const stale = await control('delivery', { event: id, timestamp: Math.floor(Date.now() / 1000) - 301 });
  assert.throws(() => stripe.webhooks.constructEvent(stale.body, stale.signature, secret), /Timestamp outside the tolerance zone/);
  const rolled = await control('delivery', { event: id, secrets: ['whsec_older', secret] });
  assert.equal(stripe.webhooks.constructEvent(rolled.body, rolled.signature, secret).id, id);
});

test('the fake signs exactly as the client does', async () => {
  const payload = JSON.stringify({ id: 'evt_1', object: 'event', name: 'Zoë' });
  const timestamp = Math.floor(Date.now() / 1000);
  const theirs = stripe.webhooks.generateTestHeaderString({ payload, secret: 'whsec_x', timestamp });
  const ours = await control('sign', { body: payload, secrets: ['whsec_x'], timestamp });
  assert.equal(ours, theirs);
});

test('events and webhook endpoints', async () => {
  const hook = await stripe.webhookEndpoints.create({
    url: 'https://shop.example/hook',
    enabled_events: ['customer.created'],
    api_version: '2026-10-28.endive',
  });
  assert.match(hook.secret, /^whsec_/);
  assert.equal((await stripe.webhookEndpoints.retrieve(hook.id)).secret, undefined);

  const customer = await stripe.customers.create({ name: 'a' }, { idempotencyKey: 'make-a' });
  await stripe.customers.update(customer.id, { name: 'b' });
  const events = await stripe.events.list({ types: ['customer.*'] });
  assert.deepEqual(events.data.map((e) => [e.type, e.pending_webhooks]), [
    ['customer.updated', 0],
    ['customer.created', 1],
  ]);
  assert.deepEqual({ ...events.data[0].data.previous_attributes }, { name: 'a' });
  assert.equal(events.data[1].request.idempotency_key, 'make-a');
  assert.equal(events.data[1].request.id, customer.lastResponse.requestId);

  const [delivery] = await control('deliveries', { types: ['customer.created'] });
  assert.equal(stripe.webhooks.constructEvent(delivery.body, delivery.signature, hook.secret).type, 'customer.created');
  assert.equal((await stripe.webhookEndpoints.update(hook.id, { disabled: true })).status, 'disabled');
  assert.equal((await stripe.webhookEndpoints.del(hook.id)).deleted, true);
});
