use arbitrary::{Result, Unstructured};
use payments_ledger::Observation;
use payments_ledger::memory::Memory;

use crate::LIVES;
use crate::any;
use crate::world::{self, SHAPES};

/// The fields that say which objects belong together, when one was made, or what became of it. Two
/// that contradict each other have no right answer, and the later one is believed; a state that is
/// none leaves a payment's row as it was.
const LINKS: &[&str] = &[
    "charge",
    "charges",
    "created",
    "customer",
    "customer_account",
    "data",
    "deleted",
    "id",
    "invoice",
    "items",
    "latest_charge",
    "latest_invoice",
    "lines",
    "metadata",
    "mode",
    "object",
    "parent",
    "payment",
    "payment_intent",
    "payments",
    "refunds",
    "status",
    "subscription",
    "subscription_details",
];

/// A life as Stripe tells it, with anything in any field and in any order: its rows are computed.
/// As long as it is clear what belongs together, they come out the same in another order, and
/// telling it all again changes none.
pub fn projections(data: &[u8]) {
    // Too few bytes for a case are one, too.
    let _ = any_life(&mut Unstructured::new(data));
}

fn any_life(u: &mut Unstructured<'_>) -> Result<()> {
    let (name, mode, world) = u.choose(&LIVES)?;
    let shape = *u.choose(&SHAPES)?;
    let is_clear: bool = u.arbitrary()?;
    let mut told: Vec<Observation> = Vec::new();
    for (number, happening) in world.told.iter().enumerate() {
        let one = happening.event(&format!("evt_{number}"), shape);
        let mut body = one.body.to_map();
        any::disturb(u, &mut body, |name| !is_clear || !LINKS.contains(&name))?;
        told.extend(Observation::new(body, one.as_of, one.source));
    }
    let start = mode.map_or_else(world::empty, world::with_our_row);
    let mut store = start.clone();
    tell(&mut store, &told);
    let rows = world::text(&store);
    tell(&mut store, &told);
    if !is_clear {
        return Ok(());
    }
    same(name, "told again", &rows, &store);
    for at in (1..told.len()).rev() {
        told.swap(at, u.choose_index(at + 1)?);
    }
    let mut store = start;
    tell(&mut store, &told);
    same(name, "in another order", &rows, &store);
    Ok(())
}

fn tell(store: &mut Memory, told: &[Observation]) {
    for one in told {
        world::deliver(store, vec![one.clone()]);
    }
}

fn same(life: &str, how: &str, rows: &str, store: &Memory) {
    let found = world::text(store);
    assert!(
        rows == found,
        "{life}, {how}:\n{}",
        world::diff(rows, &found)
    );
}
