/** Checkout and the customer portal for an app that has a supabase-js client, or a bare PostgrestClient. */

export type Environment = 'test' | 'live';
export type Subject = { type: string; id: string };
export type LineItem = ({ stripePriceId: string } | { lookupKey: string }) & { quantity?: number };

export interface CheckoutRequest {
  /** Left out: the one that is open to apps. */
  environment?: Environment;
  mode: 'payment' | 'subscription';
  lineItems: LineItem[];
  successUrl: string;
  cancelUrl: string;
  /** Who is billed; a subscription needs one. */
  subject?: Subject;
  customerEmail?: string | null;
  metadata?: Record<string, string>;
  /** The same key gets the same session. */
  idempotencyKey?: string;
}

export interface CheckoutSession {
  id: string;
  environment: Environment;
  mode: 'payment' | 'subscription';
  status: 'initialized' | 'open' | 'completed' | 'expired' | 'failed';
  paymentStatus: 'paid' | 'unpaid' | 'no_payment_required' | null;
  subjectType: string | null;
  subjectId: string | null;
  customerEmail: string | null;
  stripeCheckoutSessionId: string | null;
  stripeCustomerId: string | null;
  stripePaymentIntentId: string | null;
  stripeSubscriptionId: string | null;
  url: string | null;
  lastError: string | null;
  createdAt: string;
  updatedAt: string;
}

export interface CustomerPortalRequest {
  environment?: Environment;
  subject: Subject;
  returnUrl?: string;
  configuration?: string;
}

export interface CustomerPortalSession {
  id: string;
  environment: Environment;
  status: 'initialized' | 'created' | 'failed';
  subjectType: string;
  subjectId: string;
  stripeCustomerId: string | null;
  returnUrl: string | null;
  configuration: string | null;
  url: string | null;
  lastError: string | null;
  createdAt: string;
  updatedAt: string;
}

export class PaymentsError extends Error {
  /**
   * @param code what to branch on: `no_customer`, `key_reused`, `environment_closed` …; where it is
   *   not from payments, the gateway's or Postgres's own, such as `PGRST202` or `42501`
   * @param statusCode of the HTTP response; 0 if there was none
   * @param hint what to do about it
   */
  constructor(
    message: string,
    readonly code: string,
    readonly statusCode: number,
    readonly hint: string | null,
  ) {
    super(message);
    this.name = 'PaymentsError';
  }
}

export type Result<Name extends string, Row> =
  | { data: Record<Name, Row>; error: null }
  | { data: null; error: PaymentsError };

interface Failure {
  message: string;
  code?: string;
  details?: string | null;
  hint?: string | null;
}

/** As much of a client as is needed. */
interface Client {
  rpc(name: string, body: object): PromiseLike<{ data: unknown; error: Failure | null; status: number }>;
}

export function payments(client: Client) {
  async function call<Name extends string, Row>(name: Name, body: object): Promise<Result<Name, Row>> {
    // What is null is left out: not every gateway tells null from the empty string.
    const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value != null));
    const { data, error, status } = await client.rpc(`create_${snake(name)}`, renamed(given, snake));
    if (error) {
      const code = codeIn(error.details) ?? error.code ?? '';
      return { data: null, error: new PaymentsError(error.message, code, status, error.hint ?? null) };
    }
    return { data: { [name]: renamed(data as object, camel) } as Record<Name, Row>, error: null };
  }

  return {
    /** Starts a checkout: send the buyer to the session's url. */
    createCheckoutSession: (request: CheckoutRequest) =>
      call<'checkoutSession', CheckoutSession>('checkoutSession', request),
    /** Opens the billing portal of a customer; `no_customer` before there is one. */
    createCustomerPortalSession: (request: CustomerPortalRequest) =>
      call<'customerPortalSession', CustomerPortalSession>('customerPortalSession', request),
  };
}

/** Columns are renamed, not what is in them: metadata is the app's own. */
function renamed(object: object, rename: (name: string) => string): object {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [rename(name), value]));
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function camel(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** The code in the details, which payments gives as a JSON object, and others as any text. */
function codeIn(details: string | null | undefined): string | undefined {
  try {
    return JSON.parse(details ?? '').code;
  } catch {
    return undefined;
  }
}
