//! End-to-end tests: the real program on real control planes, with the real kubectl.
#![allow(missing_docs, reason = "a test binary")]

mod api;
mod draining;
mod gate;
mod install;
mod installation;
mod living;
mod registering;
mod reporting;
mod repository;
mod watching;
mod ways_through;
