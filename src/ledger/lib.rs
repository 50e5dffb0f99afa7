//! The join and the pure projections.
