//! Merging is a join: its laws, what it must find out, and the hard cases by name.

mod cases;
mod crowd;
mod laws;
mod observed;
mod truth;
