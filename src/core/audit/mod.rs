//! Finding drift and putting it back, as far as it is decided: no I/O, no clock.

pub mod candidate;
