create function payments.sync_step(environment text, objects text[] default null)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'sync_step_wrapper';

comment on function payments.sync_step(text, text[]) is
'Takes one step of bringing the tables in step with Stripe, and says how far the list at hand is now:
for schedulers and gateways. Where CALL can be used, CALL payments.sync takes all steps.

environment  test or live
objects      which lists; null for all: products, prices, customers, checkout_sessions, subscriptions,
             invoices, invoice_payments, charges, payment_intents, refunds, disputes. Last comes due:
             whatever Stripe must be asked about one by one

A step reads one page of a list, the oldest first, or asks for some objects one by one. When all
lists are complete, the next step begins again with the first. Returns null while another session
takes a step. A row whose resume_at lies ahead says that Stripe is left alone until then.

Nothing is deleted for not being listed: Stripe is asked for it by its id. When a list is read for the
first time, what happened before fires no triggers; after that everything does, with
payments.source = sync.

Errors: 22023 unknown_object, 55000 not_configured, permission_missing, PT429, PT502, PT504 once
Stripe has failed for two minutes.';

create function payments.sync_next(environment text, objects text[] default null)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'sync_next_wrapper';

comment on function payments.sync_next(text, text[]) is
'Takes the next step of a sync that has begun, after waiting for other sessions'' steps. Null when
everything is complete. As payments.sync calls it.';

-- A procedure that commits cannot pin its search path, so every name and operator is qualified.
create procedure payments.sync(environment text, objects text[] default null)
    language plpgsql
as $$
declare
    run payments.sync_run := payments.sync_step(sync.environment, sync.objects);
    told_at timestamptz := pg_catalog.clock_timestamp();
begin
    if run.object is null then
        raise notice 'another session is syncing the environment "%"', sync.environment;
        return;
    end if;
    while run.object is not null loop
        commit;
        if run.resume_at operator(pg_catalog.>) pg_catalog.clock_timestamp() then
            raise notice 'waiting until %: %', run.resume_at, run.last_error;
            perform pg_catalog.pg_sleep(extract(epoch from run.resume_at operator(pg_catalog.-) pg_catalog.clock_timestamp()));
        elsif run.status operator(pg_catalog.=) 'complete'
            or pg_catalog.clock_timestamp() operator(pg_catalog.-) told_at operator(pg_catalog.>) interval '10 seconds'
        then
            raise notice '%: % listed, % asked for, %', run.object, run.listed, run.asked, run.status;
            told_at := pg_catalog.clock_timestamp();
        end if;
        run := payments.sync_next(sync.environment, sync.objects);
    end loop;
end;
$$;

comment on procedure payments.sync(text, text[]) is
'Brings the tables in step with Stripe by reading whole lists: everything that is there, for the first
time or after webhooks were missed.

environment  test or live
objects      which lists; null for all. See payments.sync_step

Commits after every page, so it cannot run inside a transaction; killed at any point, it goes on from
there when it is called again. Webhooks and the app go on meanwhile. A statement_timeout ends it: set
that to 0 before. Says by NOTICE how far it is, as payments.sync_runs does to everybody.';

create function payments.poll_step(environment text)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_step_wrapper';

comment on function payments.poll_step(text) is
'Reads a page of Stripe''s events and does what up to a hundred of them say, or, when there are none,
asks about some of what is due: for schedulers and gateways. Where CALL can be used, CALL
payments.poll_events does all there is to do.

environment  test or live

Returns how far the events are read; status is complete when there are no more. Null while another
session reads. Errors are those of payments.sync_step.';

create function payments.poll_page(environment text, begin boolean default true)
    returns payments.sync_run
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_page_wrapper';

comment on function payments.poll_page(text, boolean) is
'Records a page of Stripe''s events as pending. Null while another session reads, or when all are read
and begin is false. As payments.poll_events calls it.';

create function payments.poll_event(environment text, after text default null)
    returns payments.webhook_receipt
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_event_wrapper';

comment on function payments.poll_event(text, text) is
'Does what the oldest pending event says, or the oldest after the one with the id named. It stays
pending while another transaction is at work on the same thing. Null when there is none. As
payments.poll_events calls it.';

create function payments.poll_due(environment text)
    returns bigint
    language c volatile parallel unsafe
    as 'MODULE_PATHNAME', 'poll_due_wrapper';

comment on function payments.poll_due(text) is
'Asks Stripe about some of what is due, and returns how much still is. As payments.poll_events calls
it.';

create procedure payments.poll_events(environment text)
    language plpgsql
as $$
declare
    run payments.sync_run := payments.poll_page(poll_events.environment);
    receipt payments.webhook_receipt;
    settled bigint := 0;
    due bigint;
    due_before bigint;
begin
    if run.object is null then
        raise notice 'another session is polling the environment "%"', poll_events.environment;
        return;
    end if;
    while run.object is not null loop
        commit;
        receipt := null;
        loop
            receipt := payments.poll_event(poll_events.environment, receipt.stripe_event_id);
            exit when receipt.stripe_event_id is null;
            commit;
            settled := settled operator(pg_catalog.+) 1;
        end loop;
        if run.resume_at operator(pg_catalog.>) pg_catalog.clock_timestamp() then
            raise notice 'waiting until %: %', run.resume_at, run.last_error;
            perform pg_catalog.pg_sleep(extract(epoch from run.resume_at operator(pg_catalog.-) pg_catalog.clock_timestamp()));
        end if;
        run := payments.poll_page(poll_events.environment, false);
    end loop;
    loop
        due_before := due;
        due := payments.poll_due(poll_events.environment);
        commit;
        -- What Stripe does not tell of stays due, for another day.
        exit when due operator(pg_catalog.=) 0 or due operator(pg_catalog.>=) due_before;
    end loop;
    raise notice '% events', settled;
end;
$$;

comment on procedure payments.poll_events(text) is
'Reads the events that Stripe has kept since the last poll, up to 30 days, and does what they say,
oldest first: instead of webhooks where there is no public URL, or beside them to catch what was
missed. Then asks about what is due.

environment  test or live

The first poll begins with when the environment was connected. An event that also came by webhook is
done once. Commits after every event, so it cannot run inside a transaction. Triggers see
payments.source = poll.';
