//! Same facts in, same rows out: every life-cycle, in whatever order and shape it is told.

mod world;

use ledger::memory::Memory;
use ledger::{Observation, rows};
use payments_ledger as ledger;
use world::lives;
use world::{Dice, SHAPES, Shape, World, deliver, diff, empty, rebuilt, text, with_our_row};

fn start(mode: Option<&str>) -> Memory {
    mode.map_or_else(empty, with_our_row)
}

/// Every event as each endpoint that is sent it gets it.
fn events(world: &World, shapes: &[Shape]) -> Vec<Observation> {
    let told = world.told.iter().enumerate();
    told.flat_map(|(n, happening)| {
        let shapes = shapes.iter().filter(|shape| happening.reaches(**shape));
        shapes.map(move |shape| happening.event(&format!("evt_{n}_{shape:?}"), *shape))
    })
    .collect()
}

fn told_in_order(world: &World, mode: Option<&str>, shapes: &[Shape]) -> Memory {
    let mut store = start(mode);
    for event in events(world, shapes) {
        deliver(&mut store, vec![event]);
    }
    store
}

#[track_caller]
fn assert_same(name: &str, expected: &Memory, found: &Memory, how: &str) {
    let (expected, found) = (text(expected), text(found));
    if expected != found {
        let differing = diff(&expected, &found);
        panic!("{name}, {how}: rows differ\n{differing}");
    }
}

#[test]
fn every_version_tells_the_same_story() {
    for (name, mode, world) in lives::all() {
        let expected = told_in_order(&world, mode, &[Shape::Endive]);
        for shape in SHAPES {
            let found = told_in_order(&world, mode, &[shape]);
            assert_same(name, &expected, &found, &format!("{shape:?}"));
        }
        let found = told_in_order(&world, mode, &SHAPES);
        assert_same(name, &expected, &found, "all endpoints at once");
    }
}

#[test]
fn every_order_of_a_short_life_ends_in_the_same_rows() {
    for (name, mode, world) in lives::all() {
        let expected = told_in_order(&world, mode, &[Shape::Endive]);
        let events = events(&world, &[Shape::Endive]);
        if events.len() > 6 {
            continue;
        }
        let mut order: Vec<usize> = (0..events.len()).collect();
        permute(&mut order, 0, &mut |order| {
            let mut store = start(mode);
            order
                .iter()
                .for_each(|n| deliver(&mut store, vec![events[*n].clone()]));
            assert_same(name, &expected, &store, &format!("{order:?}"));
        });
    }
}

fn permute(order: &mut Vec<usize>, from: usize, visit: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        return visit(order);
    }
    for i in from..order.len() {
        order.swap(from, i);
        permute(order, from + 1, visit);
        order.swap(from, i);
    }
}

/// Random orders, endpoints, duplicates, second events for one change, and pages.
#[test]
fn every_disorder_ends_in_the_same_rows() {
    for (name, mode, world) in lives::all() {
        let expected = told_in_order(&world, mode, &[Shape::Endive]);
        for seed in 0..rounds() {
            let dice = &mut Dice::new(seed);
            let shapes: &[Shape] = match dice.roll(5) {
                0 => &[Shape::Old],
                1 => &[Shape::Basil],
                2 => &[Shape::Endive],
                3 => &[Shape::Old, Shape::Endive],
                _ => &SHAPES,
            };
            let mut told = events(&world, shapes);
            for _ in 0..dice.roll(4) {
                let again = told[dice.roll(told.len())].clone();
                told.push(again);
            }
            for _ in 0..dice.roll(3) {
                told.push(page(&world, shapes, dice));
            }
            dice.shuffle(&mut told);
            let mut store = start(mode);
            if dice.roll(2) == 0 {
                store = store.jealous();
            }
            while !told.is_empty() {
                let batch = told.split_off(told.len() - dice.roll(told.len()).min(2) - 1);
                deliver(&mut store, batch);
            }
            assert_same(name, &expected, &store, &format!("{shapes:?}, seed {seed}"));
            if seed % 16 == 0 {
                assert_same(
                    name,
                    &expected,
                    &rebuilt(&store),
                    &format!("rebuilt, seed {seed}"),
                );
            }
        }
    }
}

/// How many random orders each life-cycle is tried in: `ROUNDS` from outside, for a long night.
fn rounds() -> u64 {
    std::env::var("ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60)
}

/// An object on a page: as it was at some moment, seen between then and its next change.
fn page(world: &World, shapes: &[Shape], dice: &mut Dice) -> Observation {
    let n = dice.roll(world.told.len());
    let seen = &world.told[n];
    let of_it = |h: &&world::Happening| h.body["id"] == seen.body["id"];
    let later = world.told.iter().filter(of_it).filter(|h| h.at > seen.at);
    let seen = world
        .told
        .iter()
        .rev()
        .filter(of_it)
        .find(|h| h.at == seen.at)
        .unwrap_or(seen);
    let until = later.map(|h| h.at).min().unwrap_or(seen.at + 100);
    let at = seen.at + dice.roll((until - seen.at) as usize) as i64;
    seen.listed(at, shapes[dice.roll(shapes.len())])
}

#[test]
fn nothing_is_written_twice() {
    for (name, mode, world) in lives::all() {
        let mut store = told_in_order(&world, mode, &[Shape::Endive]);
        store.fired.clear();
        for event in events(&world, &[Shape::Endive]) {
            deliver(&mut store, vec![event]);
        }
        assert_eq!(store.fired, [], "{name}");
    }
}

#[test]
fn a_payment_is_never_deleted_nor_changes_its_type() {
    for (name, mode, world) in lives::all() {
        for seed in 0..20 {
            let mut told = events(&world, &SHAPES);
            Dice::new(seed).shuffle(&mut told);
            let mut store = start(mode);
            let mut known = std::collections::BTreeMap::new();
            for event in told {
                deliver(&mut store, vec![event]);
                let now: std::collections::BTreeMap<_, _> = store
                    .all::<rows::Payment>()
                    .into_iter()
                    .map(|row| (row.id, row.kind))
                    .collect();
                for (id, kind) in &known {
                    assert_eq!(now.get(id), Some(kind), "{name}, seed {seed}");
                }
                known = now;
            }
        }
    }
}
