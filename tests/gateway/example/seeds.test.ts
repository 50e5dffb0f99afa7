// The examples of an SDK for payments, as an app writes them, against a gateway that runs.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PostgrestClient } from '@supabase/postgrest-js';
import { createClient } from '@supabase/supabase-js';
import { payments } from './payments.js';

function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

const gateway = setting('GATEWAY_URL');
const shirt = setting('SHIRT');

function signedIn(token?: string) {
  return new PostgrestClient(gateway, { headers: token ? { Authorization: `Bearer ${token}` } : {} });
}

const visitor = payments(signedIn());
const alice = signedIn(setting('ALICE'));
const bob = signedIn(setting('BOB'));

const window = {
  location: {
    origin: 'https://shop.example',
    went: [] as string[],
    assign(url: string) {
      this.went.push(url);
    },
  },
};

async function stripe(action: string, body: object): Promise<any> {
  const answer = await fetch(`${setting('FAKE_STRIPE_CONTROL')}/_fake/${action}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  const result = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(result));
  return result;
}

/** The buyer pays, and Stripe tells. */
async function pay(session: string | null) {
  await stripe('complete', { session });
  for (const event of await stripe('send', { url: `${gateway}/rpc/stripe_webhook` })) {
    assert.deepEqual(event.attempts.map((attempt: { status: number }) => attempt.status), [200]);
  }
}

test('one-time checkout of somebody who is not signed in', async () => {
  const user = null as { email: string } | null;
  const orderId = 'o1';

  const { data, error } = await visitor.createCheckoutSession({
    environment: 'test',
    mode: 'payment',
    lineItems: [{ stripePriceId: shirt, quantity: 1 }],
    successUrl: `${window.location.origin}/checkout/success`,
    cancelUrl: `${window.location.origin}/pricing`,
    customerEmail: user?.email ?? null,
    metadata: { order_id: orderId },
    idempotencyKey: `order:${orderId}`,
  });

  if (error) throw error;
  if (data.checkoutSession.url) {
    window.location.assign(data.checkoutSession.url);
  }

  const session = data.checkoutSession;
  assert.deepEqual(window.location.went.splice(0), [session.url]);
  assert.deepEqual(
    {
      environment: session.environment,
      mode: session.mode,
      status: session.status,
      paymentStatus: session.paymentStatus,
      subjectType: session.subjectType,
      subjectId: session.subjectId,
      customerEmail: session.customerEmail,
      stripePaymentIntentId: session.stripePaymentIntentId,
      stripeSubscriptionId: session.stripeSubscriptionId,
      lastError: session.lastError,
    },
    {
      environment: 'test',
      mode: 'payment',
      status: 'open',
      paymentStatus: 'unpaid',
      subjectType: null,
      subjectId: null,
      customerEmail: null,
      stripePaymentIntentId: null,
      stripeSubscriptionId: null,
      lastError: null,
    },
  );
  assert.match(session.id, /^[0-9a-f-]{36}$/);
  assert.match(session.stripeCheckoutSessionId ?? '', /^cs_test_/);
  assert.ok(Date.parse(session.createdAt) <= Date.parse(session.updatedAt));
});

test('one-time checkout of somebody who is signed in, and a retry', async () => {
  const user = { id: 'alice', email: 'alice@example.com' } as { id: string; email: string } | null;
  const orderId = 'o2';
  const buy = () =>
    payments(alice).createCheckoutSession({
      environment: 'test',
      mode: 'payment',
      lineItems: [{ stripePriceId: shirt, quantity: 1 }],
      successUrl: `${window.location.origin}/checkout/success`,
      cancelUrl: `${window.location.origin}/pricing`,
      customerEmail: user?.email ?? null,
      subject: { type: 'user', id: 'alice' },
      metadata: { order_id: orderId },
      idempotencyKey: `order:${orderId}`,
    });

  const first = await buy();
  if (first.error) throw first.error;
  assert.equal(first.data.checkoutSession.customerEmail, 'alice@example.com');
  const second = await buy();
  assert.deepEqual(second, first);

  await pay(first.data.checkoutSession.stripeCheckoutSessionId);
  const third = await buy();
  assert.equal(third.data?.checkoutSession.id, first.data.checkoutSession.id);
  assert.equal(third.data?.checkoutSession.status, 'completed');
  assert.equal(third.data?.checkoutSession.paymentStatus, 'paid');
  assert.match(third.data?.checkoutSession.stripePaymentIntentId ?? '', /^pi_/);
});

test('subscription checkout, and the customer portal before and after it', async () => {
  const teamId = 'red';
  const user = { email: 'alice@example.com' };
  const openPortal = () =>
    payments(alice).createCustomerPortalSession({
      environment: 'test',
      subject: { type: 'team', id: teamId },
      returnUrl: `${window.location.origin}/billing`,
    });

  let subscribeButton = false;
  const before = await openPortal();
  if (before.error) {
    if ('statusCode' in before.error && before.error.statusCode === 404) {
      // No Stripe customer mapping exists yet. Show a subscribe CTA instead.
      subscribeButton = true;
    } else {
      throw before.error;
    }
  }
  assert.ok(subscribeButton);
  assert.equal(before.error?.code, 'no_customer');

  const { data, error } = await payments(alice).createCheckoutSession({
    environment: 'test',
    mode: 'subscription',
    subject: { type: 'team', id: teamId },
    lineItems: [{ lookupKey: 'pro_monthly', quantity: 1 }],
    successUrl: `${window.location.origin}/billing/success`,
    cancelUrl: `${window.location.origin}/billing`,
    customerEmail: user.email,
    idempotencyKey: `team:${teamId}:pro-monthly`,
  });

  if (error) throw error;
  assert.equal(data.checkoutSession.subjectId, 'red');
  await pay(data.checkoutSession.stripeCheckoutSessionId);

  const after = await openPortal();
  if (after.error) throw after.error;
  if (after.data.customerPortalSession.url) {
    window.location.assign(after.data.customerPortalSession.url);
  }
  const session = after.data.customerPortalSession;
  assert.deepEqual(window.location.went.splice(0), [session.url]);
  assert.match(session.stripeCustomerId ?? '', /^cus_/);
  assert.deepEqual(
    [session.status, session.subjectType, session.subjectId, session.returnUrl, session.configuration],
    ['created', 'team', 'red', 'https://shop.example/billing', null],
  );
});

test('an order of the app: pending, paid for, fulfilled by a trigger', async () => {
  const user = { id: 'bob', email: 'bob@example.com' };

  // An object and not a list of one, for which postrust would have to read quoted column names.
  const { data: order, error: orderError } = await bob
    .from('orders')
    .insert({ user_id: user.id, status: 'pending' })
    .select()
    .single();

  if (orderError) throw orderError;

  const { data, error } = await payments(bob).createCheckoutSession({
    environment: 'test',
    mode: 'payment',
    lineItems: [{ stripePriceId: shirt, quantity: 1 }],
    successUrl: `${window.location.origin}/orders/${order.id}`,
    cancelUrl: `${window.location.origin}/pricing`,
    customerEmail: user.email,
    metadata: { order_id: String(order.id) },
    idempotencyKey: `order:${order.id}`,
  });

  if (error) throw error;
  await pay(data.checkoutSession.stripeCheckoutSessionId);

  const mine = await bob.from('orders').select('id,status');
  assert.deepEqual(mine.data, [{ id: order.id, status: 'paid' }]);
  const hers = await alice.from('orders').select('id,status');
  assert.deepEqual(hers.data, []);
});

test('what a user reads of their own', async () => {
  const { data: pro } = await alice.rpc('is_pro');
  assert.equal(pro, true);
  const { data: subscription } = await alice.from('my_subscriptions').select('status,subject_id').single();
  assert.deepEqual(subscription, { status: 'active', subject_id: 'red' });
  const { data: paid } = await alice.from('my_payments').select('type,status,amount').order('amount');
  assert.deepEqual(paid, [
    { type: 'subscription_invoice', status: 'succeeded', amount: 900 },
    { type: 'one_time_payment', status: 'succeeded', amount: 1900 },
  ]);
  const nobody = await signedIn(setting('CAROL')).from('my_payments').select('type');
  assert.deepEqual(nobody.data, []);
});

test('errors say what they are', async () => {
  const request = {
    mode: 'payment' as const,
    lineItems: [{ stripePriceId: shirt }],
    successUrl: `${window.location.origin}/checkout/success`,
    cancelUrl: `${window.location.origin}/pricing`,
  };
  const refused = async (result: Promise<{ error: Error | null }>) => {
    const { error } = await result;
    assert.ok(error instanceof Error && 'code' in error && 'statusCode' in error, String(error));
    assert.ok(error.message);
    return [error.code, error.statusCode];
  };

  assert.deepEqual(
    await refused(visitor.createCheckoutSession({ ...request, environment: 'live' })),
    ['environment_closed', 401],
  );
  const key = { ...request, idempotencyKey: 'reused' };
  await visitor.createCheckoutSession(key);
  assert.deepEqual(
    await refused(visitor.createCheckoutSession({ ...key, cancelUrl: 'https://shop.example/elsewhere' })),
    ['key_reused', 409],
  );
  // A misspelt argument is 404 too: so branch on the code, not on the status.
  const misspelt = { ...request, sucessUrl: 'https://shop.example' };
  assert.deepEqual(await refused(visitor.createCheckoutSession(misspelt)), ['PGRST202', 404]);
  const nobody = payments(new PostgrestClient('http://127.0.0.1:1'));
  const { error } = await nobody.createCheckoutSession(request);
  assert.equal(error?.statusCode, 0);
});

test('the client of supabase-js will do as well', () => {
  // Compiled, not called: without WebSocket, which came with node 22, it does not start.
  (): unknown => payments(createClient('https://project.supabase.co', 'key'));
});
