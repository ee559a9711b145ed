//! The trail: what is recorded of every verdict other than a plain allow.
//!
//! For now a record is one JSON line in its final schema, [`record::SCHEMA`], and, coalesced, an
//! Event. No record ever holds a value of an object, nor an unkeyed hash of a Secret's content.

pub mod record;
pub mod sink;
