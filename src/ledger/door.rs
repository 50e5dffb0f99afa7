//! The one door: everything that Stripe tells enters here and leaves as rows.
//!
//! An observation is merged into the mirror; then every row that depends on what was merged is
//! computed again from what the mirror and our own rows now say, until nothing more changes; then
//! all of them are written at once. Nothing is early-exited when a merge changes nothing: the
//! event may be a second try after an app's trigger failed, which left the mirror ahead of the
//! rows.
//!
//! # Why no update is lost, and nobody deadlocks
//!
//! Some rows depend on several objects, which events on other connections may be changing. So
//! whoever writes an object holds the lock of its own id and of every id that it names (those of
//! payment intents, charges, invoices, subscriptions, customers and our sessions), and whoever
//! projects reads an object only under a lock that the object's writers must hold: the id by
//! which it was found. Of two transactions that could miss each other's news one therefore waits,
//! and reads what the other committed.
//!
//! The locks that an observation itself names are waited for, all at once and in one order, with
//! nothing else held. What the closure shows beyond them (a refund names a charge, the charge's
//! intent pays an invoice …) is only tried: when another transaction has it, the answer is
//! [`Outcome::Contended`], the caller rolls back to its savepoint, which gives up everything
//! held, and comes again with those locks among the ones to wait for. A wait while holding what
//! others may need thus never happens. All locks are taken before the first row is written,
//! because an app's trigger may run with any of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::embedded::split;
use crate::ids::{Ids, key};
use crate::locking;
use crate::mirror::{Mirrored, Object};
use crate::observation::{Key, Observation};
use crate::projections::group::{Group, Member};
use crate::projections::subject::{Owners, Subject};
use crate::projections::{catalog, checkout, customer, dispute, payment, subscription};
use crate::rows::{
    CheckoutSession, Customer, CustomerMapping, Dispute, Invoice, Payment, Price, Product,
    Projected, Subscription, SubscriptionItem, TABLES,
};
use crate::store::{Due, Find, Known, Lock, Scope, Store};
use crate::table::{Cell, Row, Table};

/// What came of an observation.
#[derive(Debug)]
pub enum Outcome {
    /// Mirror and rows say what Stripe said.
    Settled(Changes),
    /// Another transaction holds a lock that turned out to be needed. Nothing was written to the
    /// projections. Roll back to the savepoint before the call and call again with these locks
    /// added to those of the last try.
    Contended(Vec<Lock>),
}

/// What was written.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows inserted or updated.
    pub written: Vec<Row>,
    /// Rows that no fact supports any more: removed subscription items, mappings whose
    /// subscription now names another subject. Payments are never among them.
    pub deleted: Vec<Row>,
    /// Objects about which Stripe must now be asked, and were not before.
    pub due: Vec<(Key, Due)>,
}

/// Merges what was observed, and everything embedded in it, and brings every row that depends on
/// it up to date. `locks` are those of an earlier [`Outcome::Contended`], or that the caller
/// wants besides.
pub fn observe<S: Store>(
    store: &mut S,
    observations: Vec<Observation>,
    locks: &[Lock],
) -> Result<Outcome, S::Error> {
    let mut run = Run::new(store);
    let outcome = run.observe(observations, locks);
    run.close(outcome)
}

/// Merges what was observed, and everything embedded in it, and computes no row: for when an app's
/// trigger fails, and what Stripe said is to be known all the same.
pub fn mirror<S: Store>(store: &mut S, observations: Vec<Observation>) -> Result<(), S::Error> {
    let mut states: BTreeMap<Key, Mirrored> = BTreeMap::new();
    for observation in observations.into_iter().flat_map(split) {
        join_into(&mut states, Mirrored::of(observation));
    }
    store.merge(states.into_iter().collect())?;
    Ok(())
}

/// What is computed together in a rebuild.
#[derive(Debug)]
pub struct Stage {
    /// The types of objects that rows are computed from.
    pub objects: &'static [&'static str],
    /// The tables in which those rows are all there should be.
    pub tables: &'static [&'static Table],
}

/// Everything that rows depend on, in the order of a rebuild: sessions and subscriptions say whose
/// a customer is, and customers whose a payment is. `checkout_sessions` is not among the tables:
/// its rows were asked for by callers, not told by Stripe.
pub const STAGES: &[Stage] = &[
    Stage {
        objects: &["checkout.session", "subscription", "subscription_item"],
        tables: &[Subscription::TABLE, SubscriptionItem::TABLE],
    },
    Stage {
        objects: &["customer"],
        tables: &[Customer::TABLE, CustomerMapping::TABLE],
    },
    Stage {
        objects: &[
            "product",
            "price",
            "invoice",
            "invoice_payment",
            "payment_intent",
            "charge",
            "refund",
            "dispute",
        ],
        tables: &[
            Product::TABLE,
            Price::TABLE,
            Invoice::TABLE,
            Dispute::TABLE,
            Payment::TABLE,
        ],
    },
];

/// Whether any row depends on objects of this type. Others are mirrored, and that is all.
pub fn projects(object_type: &str) -> bool {
    STAGES
        .iter()
        .any(|stage| stage.objects.contains(&object_type))
}

fn join_into(states: &mut BTreeMap<Key, Mirrored>, state: Mirrored) {
    let key = state.key().clone();
    let joined = match states.remove(&key) {
        Some(other) => other.join(state),
        None => state,
    };
    states.insert(key, joined);
}

/// Computes again what depends on these mirrored objects, though nothing new was observed.
///
/// After `link_customer`: with the key of the customer, mirrored or not, whose mapping row was just
/// written under an exclusive lock on [`Scope::Customer`]; the customer's subscriptions, invoices
/// and payments follow, but not rows that depend on a single object (products, prices, customers,
/// disputes).
pub fn reproject<S: Store>(
    store: &mut S,
    keys: &[Key],
    locks: &[Lock],
) -> Result<Outcome, S::Error> {
    let mut run = Run::new(store);
    let outcome = run.reproject(keys, locks);
    run.close(outcome)
}

/// What a part of a rebuild did.
#[derive(Debug)]
pub struct Rebuilt {
    /// What was written.
    pub changes: Changes,
    /// The objects of payments that are done with, whichever of them the part began with.
    pub objects: Vec<Key>,
    /// The rows that are as they should be, each by its table and its key.
    pub rows: Vec<(&'static Table, Vec<Cell>)>,
}

/// Computes rows afresh, those of these mirrored objects and these rows themselves, and removes
/// those of the rows that nothing mirrored supports any more: a mistake of somebody's, or of an
/// earlier version of the projections.
///
/// Waits until it has the environment to itself, and keeps it to the end of the transaction. A
/// whole rebuild goes through the [`STAGES`], and in each page by page through the objects and
/// then through the rows. What an earlier page of the stage says is done with need not be gone
/// through again.
pub fn rebuild<S: Store>(store: &mut S, keys: &[Key], rows: Vec<Row>) -> Result<Rebuilt, S::Error> {
    let mut run = Run::new(store);
    let outcome = run.rebuild(keys, rows);
    let objects = std::mem::take(&mut run.paid);
    let rows = run.drafts.keys().cloned();
    let rows = rows.filter_map(|(table, key)| Some((*TABLES.get(table)?, key)));
    let rows = rows.collect();
    let changes = match run.close(outcome)? {
        Outcome::Settled(changes) => changes,
        // Whoever is alone needs no lock.
        Outcome::Contended(_) => Changes::default(),
    };
    Ok(Rebuilt {
        changes,
        objects,
        rows,
    })
}

/// Why a run ends before it is done.
enum Stop<E> {
    Failed(E),
    Contended(Vec<Lock>),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

type Step<T, S> = Result<T, Stop<<S as Store>::Error>>;

/// What is still to be computed.
#[derive(Debug, Default)]
struct Tasks {
    sessions: BTreeSet<Key>,
    subscriptions: BTreeSet<String>,
    customers: BTreeSet<String>,
    payments: Ids,
}

struct Run<'s, S: Store> {
    store: &'s mut S,
    environment: String,
    /// Locks held, and whether exclusively.
    held: BTreeMap<Scope, bool>,
    /// Mirrored objects, read under a lock that their writers must hold.
    known: BTreeMap<Key, Known>,
    tasks: Tasks,
    /// Rows computed, by the place of their table and by key, so that they are written in one
    /// order and read back by later steps as if they were written.
    drafts: BTreeMap<(usize, Vec<Cell>), Row>,
    gone: BTreeMap<(usize, Vec<Cell>), Row>,
    dues: BTreeMap<Key, Due>,
    /// The objects from which payments were computed.
    paid: Vec<Key>,
}

impl<'s, S: Store> Run<'s, S> {
    fn new(store: &'s mut S) -> Self {
        Self {
            environment: store.environment().to_owned(),
            store,
            held: BTreeMap::new(),
            known: BTreeMap::new(),
            tasks: Tasks::default(),
            drafts: BTreeMap::new(),
            gone: BTreeMap::new(),
            dues: BTreeMap::new(),
            paid: Vec::new(),
        }
    }

    fn observe(&mut self, observations: Vec<Observation>, locks: &[Lock]) -> Step<(), S> {
        let observations: Vec<_> = observations.into_iter().flat_map(split).collect();
        let mut states: BTreeMap<Key, Mirrored> = BTreeMap::new();
        let mut wanted: Vec<Lock> = locks.to_vec();
        for observation in observations {
            let state = Mirrored::of(observation);
            wanted.extend(locking::writing(&state.object()));
            join_into(&mut states, state);
        }
        self.wait(wanted)?;
        for merged in self.store.merge(states.into_iter().collect())? {
            if let Some(before) = &merged.before {
                self.affected_by(before);
            }
            self.affected_by(&merged.after.object);
            self.known
                .insert(merged.after.object.key.clone(), merged.after);
        }
        self.singles();
        self.settle()
    }

    fn reproject(&mut self, keys: &[Key], locks: &[Lock]) -> Step<(), S> {
        let mut wanted: Vec<Lock> = locks.to_vec();
        wanted.extend(keys.iter().filter_map(locking::own));
        let customers = keys.iter().filter(|key| key.object_type == "customer");
        let customers: BTreeSet<_> = customers.map(|key| key.id.clone()).collect();
        let of_customers = customers.iter().cloned().map(Scope::Customer);
        wanted.extend(of_customers.map(Lock::exclusive));
        self.wait(wanted)?;
        for known in self.store.objects(keys, &[], &BTreeMap::new())? {
            self.need(locking::writing(&known.object))?;
        }
        // Read again: what changed the objects may have committed before the locks were taken.
        for known in self.store.objects(keys, &[], &BTreeMap::new())? {
            self.affected_by(&known.object);
            self.known.insert(known.object.key.clone(), known);
        }
        self.follow_customers(&customers)?;
        self.tasks.customers.extend(customers);
        self.settle()
    }

    /// Whether nobody else writes to the environment.
    fn is_alone(&self) -> bool {
        self.held.get(&Scope::Environment) == Some(&true)
    }

    fn rebuild(&mut self, keys: &[Key], rows: Vec<Row>) -> Step<(), S> {
        self.wait(vec![Lock::exclusive(Scope::Environment)])?;
        let own = rows.iter().filter_map(single);
        let keys: Vec<_> = keys.iter().cloned().chain(own).collect();
        for known in self.store.objects(&keys, &[], &BTreeMap::new())? {
            self.affected_by(&known.object);
            self.known.insert(known.object.key.clone(), known);
        }
        let customers = keys.iter().filter(|key| key.object_type == "customer");
        self.tasks
            .customers
            .extend(customers.map(|key| key.id.clone()));
        self.singles();
        rows.iter().for_each(|row| self.follow(row));
        self.settle()?;
        for row in rows {
            if !self.drafts.contains_key(&place(&row)) {
                self.remove(row);
            }
        }
        Ok(())
    }

    /// Notes what depends on an object. Called for what it was and for what it is now, because a
    /// group that it left changes too.
    fn affected_by(&mut self, object: &Object) {
        match object.key.object_type.as_str() {
            "checkout.session" => {
                self.tasks.sessions.insert(object.key.clone());
                self.tasks.payments.add(object);
            }
            "subscription" => {
                self.tasks.subscriptions.insert(object.key.id.clone());
            }
            "subscription_item" => {
                let subscription = object.links.subscription.clone();
                self.tasks.subscriptions.extend(subscription);
            }
            "payment_intent"
            | "charge"
            | "refund"
            | "dispute"
            | "invoice"
            | "invoice_payment"
            | "invoice_payment_list" => self.tasks.payments.add(object),
            _ => {}
        }
    }

    fn settle(&mut self) -> Step<(), S> {
        loop {
            let tasks = &mut self.tasks;
            if !tasks.sessions.is_empty() {
                let sessions = std::mem::take(&mut tasks.sessions);
                self.sessions(sessions)?;
            } else if !tasks.subscriptions.is_empty() {
                let subscriptions = std::mem::take(&mut tasks.subscriptions);
                self.subscriptions(subscriptions)?;
            } else if !tasks.customers.is_empty() {
                let customers = std::mem::take(&mut tasks.customers);
                self.customers(customers)?;
            } else if !tasks.payments.is_empty() {
                let payments = std::mem::take(&mut tasks.payments);
                self.payments(payments)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Rows that depend on one object only. No lock but that of the object's own row in the mirror
    /// keeps two transactions from writing them in the wrong order, so they are computed only
    /// where that is held or where nobody else writes.
    fn singles(&mut self) {
        let environment = self.environment.clone();
        let rows: Vec<_> = self
            .known
            .values()
            .filter_map(
                |Known { object, .. }| match object.key.object_type.as_str() {
                    "product" => Some(catalog::product(&environment, object).into_row()),
                    "price" => Some(catalog::price(&environment, object).into_row()),
                    "customer" => Some(customer::customer(&environment, object).into_row()),
                    "dispute" => Some(dispute::dispute(&environment, object).into_row()),
                    _ => None,
                },
            )
            .collect();
        rows.into_iter().for_each(|row| self.draft(row));
    }

    fn sessions(&mut self, keys: BTreeSet<Key>) -> Step<(), S> {
        let sessions: Vec<Object> = self.read(keys)?;
        let ours: Vec<_> = sessions
            .iter()
            .filter_map(|session| Some((checkout::row_of(session)?, session)))
            .collect();
        self.need(
            ours.iter()
                .map(|(id, _)| Lock::exclusive(Scope::Session(*id))),
        )?;
        let ids = ours.iter().map(|(id, _)| Cell::Uuid(*id));
        let rows = self.find::<CheckoutSession>(&[question::<CheckoutSession>("id", ids)])?;
        let mut rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
        for (id, session) in ours {
            let authentic = |metadata: &_| self.store.authentic(metadata);
            let existing = rows.get(&id).cloned();
            let row = checkout::checkout_session(&self.environment, session, existing, authentic);
            let Some(row) = row else { continue };
            let completed = row.status.as_deref() == Some("completed");
            if completed && row.subject_id.is_some() {
                self.tasks.customers.extend(row.stripe_customer_id.clone());
            }
            self.tasks
                .subscriptions
                .extend(row.stripe_subscription_id.clone());
            rows.insert(id, row.clone());
            self.draft(row.into_row());
        }
        Ok(())
    }

    fn subscriptions(&mut self, ids: BTreeSet<String>) -> Step<(), S> {
        self.need(
            ids.iter()
                .cloned()
                .map(|id| Lock::exclusive(Scope::Subscription(id))),
        )?;
        let keys = ids.iter().map(|id| key("subscription", id)).collect();
        let subscriptions = self.read(keys)?;
        self.need(subscriptions.iter().flat_map(locking::writing))?;
        let items = subscriptions.iter().flat_map(subscription::listed);
        let items = self.read(items.map(|id| key("subscription_item", &id)).collect())?;
        let items: BTreeMap<_, _> = items
            .into_iter()
            .map(|item| (item.key.id.clone(), item))
            .collect();

        let texts = |ids: BTreeSet<String>| ids.into_iter().map(Cell::Text);
        let customers = subscriptions
            .iter()
            .filter_map(|s| s.links.customer.clone())
            .collect();
        let rows = self.find_rows(&[
            question::<Subscription>("stripe_subscription_id", texts(ids.clone())),
            question::<SubscriptionItem>("stripe_subscription_id", texts(ids.clone())),
            question::<CheckoutSession>("stripe_subscription_id", texts(ids)),
            question::<CustomerMapping>("stripe_customer_id", texts(customers)),
        ])?;
        let were = by(&rows, |row: &Subscription| {
            Some(row.stripe_subscription_id.clone())
        });
        let items_were = by(&rows, |row: &SubscriptionItem| {
            row.stripe_subscription_id.clone()
        });
        let sessions = by(&rows, |row: &CheckoutSession| {
            row.stripe_subscription_id.clone()
        });
        let mappings = by(&rows, |row: &CustomerMapping| {
            Some(row.stripe_customer_id.clone())
        });
        let mut owners = Owners::default();
        mappings
            .values()
            .flatten()
            .cloned()
            .for_each(|mapping| owners.add_mapping(mapping));
        let mut moved = BTreeSet::new();
        for object in &subscriptions {
            let id = &object.key.id;
            let by_checkout = of(&sessions, id).first();
            let by_checkout =
                by_checkout.and_then(|row| Subject::of(&row.subject_type, &row.subject_id));
            let row = subscription::subscription(&self.environment, object, by_checkout, &owners);
            let was = of(&were, id).first();
            let subject = |row: &Subscription| Subject::of(&row.subject_type, &row.subject_id);
            if was.and_then(subject) != subject(&row) {
                moved.insert(id.clone());
            }
            if let Some(customer) = &row.stripe_customer_id
                && maps_anew(&row, was, of(&mappings, customer))
            {
                self.tasks.customers.insert(customer.clone());
            }
            self.draft(row.into_row());
            self.items(object, &items, of(&items_were, id));
        }
        let moved = question::<Invoice>("stripe_subscription_id", texts(moved));
        for invoice in self.find::<Invoice>(&[moved])? {
            self.tasks
                .payments
                .invoices
                .insert(invoice.stripe_invoice_id);
        }
        Ok(())
    }

    /// The items of a subscription. What a complete list does not have is gone; a first page
    /// proves nothing of what is beyond it.
    fn items(
        &mut self,
        subscription: &Object,
        alone: &BTreeMap<String, Object>,
        were: &[SubscriptionItem],
    ) {
        let complete = !subscription::has_more_items(subscription);
        self.due(subscription, (!complete).then_some(Due::Items));
        for was in were.iter().cloned() {
            match complete {
                true => self.remove(was.into_row()),
                // It may be on a page that is still to be fetched.
                false => self.draft(was.into_row()),
            }
        }
        let items = subscription::items(&self.environment, subscription, alone);
        items
            .into_iter()
            .for_each(|item| self.draft(item.into_row()));
    }

    fn customers(&mut self, ids: BTreeSet<String>) -> Step<(), S> {
        self.need(
            ids.iter()
                .cloned()
                .map(|id| Lock::exclusive(Scope::Customer(id))),
        )?;
        let of_ids = || ids.iter().cloned().map(Cell::Text);
        let rows = self.find_rows(&[
            question::<CheckoutSession>("stripe_customer_id", of_ids()),
            question::<Subscription>("stripe_customer_id", of_ids()),
            question::<CustomerMapping>("stripe_customer_id", of_ids()),
        ])?;
        let sessions = by(&rows, |row: &CheckoutSession| {
            row.stripe_customer_id.clone()
        });
        let subscriptions = by(&rows, |row: &Subscription| row.stripe_customer_id.clone());
        let mappings = by(&rows, |row: &CustomerMapping| {
            Some(row.stripe_customer_id.clone())
        });
        let mut moved = BTreeSet::new();
        for id in &ids {
            let were = of(&mappings, id);
            let (sessions, subscriptions) = (of(&sessions, id), of(&subscriptions, id));
            let are = customer::mappings(&self.environment, id, sessions, subscriptions, were);
            let subjects = |rows: &[CustomerMapping]| -> BTreeSet<_> {
                rows.iter()
                    .map(|row| (row.subject_type.clone(), row.subject_id.clone()))
                    .collect()
            };
            if subjects(were) != subjects(&are) {
                moved.insert(id.clone());
            }
            were.iter()
                .cloned()
                .for_each(|was| self.remove(was.into_row()));
            are.into_iter().for_each(|row| self.draft(row.into_row()));
        }
        self.follow_customers(&moved)
    }

    /// Everything whose subject may come from these customers' mappings.
    fn follow_customers(&mut self, ids: &BTreeSet<String>) -> Step<(), S> {
        if ids.is_empty() {
            return Ok(());
        }
        let of_ids = || ids.iter().cloned().map(Cell::Text);
        let rows = self.find_rows(&[
            question::<Subscription>("stripe_customer_id", of_ids()),
            question::<Invoice>("stripe_customer_id", of_ids()),
            question::<Payment>("stripe_customer_id", of_ids()),
        ])?;
        rows.iter().for_each(|row| self.follow(row));
        Ok(())
    }

    /// Notes the objects that a row is computed from.
    fn follow(&mut self, row: &Row) {
        if let Some(row) = Subscription::from_row(row) {
            self.tasks.subscriptions.insert(row.stripe_subscription_id);
        } else if let Some(row) = SubscriptionItem::from_row(row) {
            self.tasks.subscriptions.extend(row.stripe_subscription_id);
        } else if let Some(row) = CustomerMapping::from_row(row) {
            self.tasks.customers.insert(row.stripe_customer_id);
        } else if let Some(row) = Invoice::from_row(row) {
            self.tasks.payments.invoices.insert(row.stripe_invoice_id);
        } else if let Some(row) = Payment::from_row(row) {
            let payments = &mut self.tasks.payments;
            payments.intents.extend(row.stripe_payment_intent_id);
            payments.charges.extend(row.stripe_charge_id);
            payments.invoices.extend(row.stripe_invoice_id);
            let session = row.stripe_checkout_session_id;
            let session = session.map(|id| key("checkout.session", &id));
            let refund = row.stripe_refund_id.map(|id| key("refund", &id));
            payments.others.extend(session.into_iter().chain(refund));
        }
    }

    fn payments(&mut self, seeds: Ids) -> Step<(), S> {
        let objects = self.closure(seeds)?;
        let group = Group::new(objects.values());
        let links = || group.members().map(Member::links);
        self.need(
            group
                .members()
                .flat_map(|member| locking::reading(member.object)),
        )?;
        let rows = links().filter_map(|links| links.session_row);
        let subscriptions = links().filter_map(|links| links.subscription.clone());
        let customers = links().filter_map(|links| links.customer.clone());
        let found = self.find_rows(&[
            question::<CheckoutSession>("id", rows.map(Cell::Uuid)),
            question::<Subscription>("stripe_subscription_id", subscriptions.map(Cell::Text)),
            question::<CustomerMapping>("stripe_customer_id", customers.map(Cell::Text)),
        ])?;
        let mut owners = Owners::default();
        for row in &found {
            CheckoutSession::from_row(row)
                .into_iter()
                .for_each(|row| owners.add_session(row));
            Subscription::from_row(row)
                .into_iter()
                .for_each(|row| owners.add_subscription(row));
            CustomerMapping::from_row(row)
                .into_iter()
                .for_each(|row| owners.add_mapping(row));
        }
        let projected = payment::project(&self.environment, &group, &owners);
        projected
            .invoices
            .into_iter()
            .for_each(|row| self.draft(row.into_row()));
        projected
            .payments
            .into_iter()
            .for_each(|row| self.draft(row.into_row()));
        for object in objects.values() {
            self.due(object, projected.due.get(&object.key).copied());
        }
        self.paid.extend(objects.into_keys().filter(pays_alone));
        Ok(())
    }

    /// Everything that hangs together with these ids, found step by step, each id locked before
    /// what names it is read.
    fn closure(&mut self, seeds: Ids) -> Step<BTreeMap<Key, Object>, S> {
        let mut objects = BTreeMap::new();
        let mut seen = Ids::default();
        let mut new = seeds;
        while !new.is_empty() {
            self.need(new.scopes().map(Lock::exclusive))?;
            let found = self.store.objects(&new.keys(), &new.links(), &self.known)?;
            seen.extend(std::mem::take(&mut new));
            for known in found {
                new.add(&known.object);
                objects.insert(known.object.key.clone(), known.object.clone());
                self.known.insert(known.object.key.clone(), known);
            }
            new.others.clear();
            new = new.without(&seen);
        }
        Ok(objects)
    }

    /// These objects as the mirror has them, read once.
    fn read(&mut self, keys: BTreeSet<Key>) -> Step<Vec<Object>, S> {
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| !self.known.contains_key(key))
            .cloned()
            .collect();
        if !missing.is_empty() {
            for known in self.store.objects(&missing, &[], &self.known)? {
                self.known.insert(known.object.key.clone(), known);
            }
        }
        Ok(keys
            .iter()
            .filter_map(|key| Some(self.known.get(key)?.object.clone()))
            .collect())
    }

    fn find<P: Projected>(&mut self, questions: &[Find]) -> Step<Vec<P>, S> {
        Ok(self
            .find_rows(questions)?
            .iter()
            .filter_map(P::from_row)
            .collect())
    }

    /// The rows that answer the questions, as they will be once this run is written.
    fn find_rows(&mut self, questions: &[Find]) -> Step<Vec<Row>, S> {
        let asked: Vec<_> = questions
            .iter()
            .filter(|q| !q.values.is_empty())
            .cloned()
            .collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = self.store.find(&asked)?;
        rows.retain(|row| {
            let place = place(row);
            !self.drafts.contains_key(&place) && !self.gone.contains_key(&place)
        });
        let drafted = self.drafts.values().filter(|row| {
            asked
                .iter()
                .any(|q| q.table == row.table && q.values.contains(row.get(q.column)))
        });
        rows.extend(drafted.cloned());
        rows.sort_by_cached_key(place);
        Ok(rows)
    }

    fn draft(&mut self, row: Row) {
        let place = place(&row);
        self.gone.remove(&place);
        self.drafts.insert(place, row);
    }

    fn remove(&mut self, row: Row) {
        let place = place(&row);
        self.drafts.remove(&place);
        self.gone.insert(place, row);
    }

    /// Notes whether Stripe must be asked about an object.
    fn due(&mut self, object: &Object, why: Option<Due>) {
        match why {
            Some(due) => self.dues.insert(object.key.clone(), due),
            None => self.dues.remove(&object.key),
        };
    }

    /// Waits for locks, before anything else is held.
    fn wait(&mut self, mut wanted: Vec<Lock>) -> Step<(), S> {
        wanted.push(Lock::shared(Scope::Environment));
        let mut missing = self.missing(wanted);
        if missing.contains(&Lock::exclusive(Scope::Environment)) {
            missing.truncate(1);
        }
        self.store.lock(&missing)?;
        self.hold(missing);
        Ok(())
    }

    /// Takes locks that turn out to be needed, or stops the run.
    fn need(&mut self, wanted: impl IntoIterator<Item = Lock>) -> Step<(), S> {
        let missing = self.missing(wanted);
        if !missing.is_empty() && !self.store.try_lock(&missing)? {
            return Err(Stop::Contended(missing));
        }
        self.hold(missing);
        Ok(())
    }

    fn hold(&mut self, locks: Vec<Lock>) {
        self.held
            .extend(locks.into_iter().map(|lock| (lock.scope, lock.exclusive)));
    }

    /// The locks among these that are not held, sorted, one a scope.
    fn missing(&self, wanted: impl IntoIterator<Item = Lock>) -> Vec<Lock> {
        if self.is_alone() {
            return Vec::new();
        }
        let mut missing: BTreeMap<Scope, bool> = BTreeMap::new();
        for Lock { scope, exclusive } in wanted {
            if !self.held.get(&scope).is_some_and(|held| *held >= exclusive) {
                *missing.entry(scope).or_default() |= exclusive;
            }
        }
        missing
            .into_iter()
            .map(|(scope, exclusive)| Lock { scope, exclusive })
            .collect()
    }

    /// Writes what was computed.
    fn close(self, outcome: Step<(), S>) -> Result<Outcome, S::Error> {
        match outcome {
            Ok(()) => {}
            Err(Stop::Contended(locks)) => return Ok(Outcome::Contended(locks)),
            Err(Stop::Failed(error)) => return Err(error),
        }
        let Self {
            store,
            known,
            drafts,
            gone,
            dues,
            ..
        } = self;
        let mut changed = Vec::new();
        let mut due = Vec::new();
        for (key, known) in known {
            let why = known.object.undecided.then_some(Due::Undecided);
            let why = why.or(dues.get(&key).copied());
            if known.due.as_deref() != why.map(Due::as_str) {
                due.extend(why.map(|why| (key.clone(), why)));
                changed.push((key, why));
            }
        }
        if !changed.is_empty() {
            store.set_due(&changed)?;
        }
        let deleted: Vec<_> = gone.into_values().collect();
        if !deleted.is_empty() {
            store.delete(deleted.clone())?;
        }
        // Triggers see a customer's old subscription before the new one that replaced it.
        let mut drafts: Vec<_> = drafts.into_iter().collect();
        drafts.sort_by_cached_key(|((table, _), row)| (*table, row.get("created_at").clone()));
        let rows: Vec<_> = drafts.into_iter().map(|(_, row)| row).collect();
        let written = if rows.is_empty() {
            Vec::new()
        } else {
            store.write(rows)?
        };
        Ok(Outcome::Settled(Changes {
            written,
            deleted,
            due,
        }))
    }
}

/// Rows of one kind, by what they belong to.
fn by<P: Projected>(
    rows: &[Row],
    owner: impl Fn(&P) -> Option<String>,
) -> BTreeMap<String, Vec<P>> {
    let mut by: BTreeMap<String, Vec<P>> = BTreeMap::new();
    for row in rows.iter().filter_map(P::from_row) {
        if let Some(owner) = owner(&row) {
            by.entry(owner).or_default().push(row);
        }
    }
    by
}

fn of<'r, P>(rows: &'r BTreeMap<String, Vec<P>>, owner: &str) -> &'r [P] {
    rows.get(owner).map(Vec::as_slice).unwrap_or_default()
}

/// Whether a subscription says of its customer what the mappings do not know, or no longer says
/// what they do.
fn maps_anew(row: &Subscription, was: Option<&Subscription>, mappings: &[CustomerMapping]) -> bool {
    let named = customer::subject_of_subscription(row);
    let renamed = was.is_some_and(|was| customer::subject_of_subscription(was) != named);
    let known = named.is_none_or(|named| customer::covered(mappings, &named, row.created_at));
    renamed || !known
}

/// The object that a row depends on, where it is one only.
fn single(row: &Row) -> Option<Key> {
    let (object_type, column) = match row.table.name {
        "products" => ("product", "stripe_product_id"),
        "prices" => ("price", "stripe_price_id"),
        "customers" => ("customer", "stripe_customer_id"),
        "disputes" => ("dispute", "stripe_dispute_id"),
        _ => return None,
    };
    match row.get(column) {
        Cell::Text(id) => Some(key(object_type, id)),
        _ => None,
    }
}

fn question<P: Projected>(column: &'static str, values: impl Iterator<Item = Cell>) -> Find {
    let values: BTreeSet<_> = values.collect();
    Find {
        table: P::TABLE,
        column,
        values: values.into_iter().collect(),
    }
}

/// Whether nothing but payments is computed from an object.
fn pays_alone(key: &Key) -> bool {
    let types = [
        "charge",
        "invoice",
        "invoice_payment",
        "payment_intent",
        "refund",
    ];
    types.contains(&key.object_type.as_str())
}

/// Where a row is written: by table, then by key.
fn place(row: &Row) -> (usize, Vec<Cell>) {
    let place = |table: &Table| TABLES.iter().position(|t| *t == table);
    (place(row.table).unwrap_or(TABLES.len()), row.key())
}
