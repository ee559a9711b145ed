//! End-to-end tests: the real program on real control planes, with the real kubectl.
#![allow(missing_docs, reason = "a test binary")]

mod adoption;
mod alerting;
mod api;
mod audit_watch;
mod auditing;
mod authors;
mod canary;
mod certificates;
mod condition_cost;
mod draining;
mod events;
mod files;
mod fleet;
mod garbage;
mod gate;
mod git;
mod hostile;
mod install;
mod installation;
mod living;
mod model;
mod recovery;
mod registering;
mod removal;
mod replicas;
mod reporting;
mod repository;
mod rights;
mod rules;
mod sources;
mod storage;
mod versions;
mod watching;
mod ways_through;
