//! What decides: canonical form, scope, index, admission verdict.
//!
//! Nothing here does I/O, reads a clock, draws a random number or logs; time and facts come in as
//! arguments. `tests/core/layering.rs` fails when an import breaks that.

pub mod audit;
pub mod author;
pub mod author_access;
pub mod breakglass;
pub mod canonical;
mod covering;
pub mod definition;
pub mod diff;
pub mod duration;
pub mod exceptions;
pub mod few;
pub mod guard;
pub mod guard_spec;
pub mod guard_spec_rivals;
pub mod hash;
mod images;
pub mod index;
pub mod json;
pub mod judge;
pub mod kinds;
pub mod learning;
pub mod message;
pub mod paths;
pub mod pause;
pub mod promotion;
pub mod registration;
pub mod report;
pub mod resolution;
mod review;
pub mod rewrite;
pub mod rotation;
mod scan;
pub mod scope;
mod shape;
pub mod signature;
pub mod standing;
pub mod supplied;
pub mod tenure;
pub mod text;
pub mod verdict;
