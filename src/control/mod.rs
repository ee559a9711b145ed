//! What one replica at a time does for all: registration, proof, status.

pub mod access;
pub mod alarm;
mod catch_up;
pub mod conditions;
pub mod endpoints;
pub mod lease;
pub mod proof;
pub mod registrar;
mod repairs;
pub mod run;
mod side;
mod standing;
mod status;
pub mod webhooks;
