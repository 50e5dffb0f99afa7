//! What must hold whatever bytes come. Each function makes a case of any bytes and panics if
//! something does not hold: for cargo-fuzz, which looks for such bytes for as long as it is let
//! (`tests/prove.sh fuzz`), and briefly for `cargo test`.

mod any;
mod event;
mod join;
mod projections;
mod signature;
#[path = "../../src/ledger/tests/world/mod.rs"]
mod world;

use std::sync::LazyLock;

pub use event::event;
pub use join::join;
pub use projections::projections;
pub use signature::signature;

/// Made once: to make them takes longer than most cases.
static LIVES: LazyLock<Vec<(&str, Option<&str>, world::World)>> = LazyLock::new(world::lives::all);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn signature(data in vec(any::<u8>(), 0..400)) {
            crate::signature(&data);
        }

        #[test]
        fn event(data in vec(any::<u8>(), 0..400)) {
            crate::event(&data);
        }

        #[test]
        fn join(data in vec(any::<u8>(), 0..1000)) {
            crate::join(&data);
        }

        #[test]
        fn projections(data in vec(any::<u8>(), 0..400)) {
            crate::projections(&data);
        }
    }
}
