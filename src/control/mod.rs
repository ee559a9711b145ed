//! What one replica at a time does for all: registration, proof, status.

pub mod access;
mod agreement;
pub mod alarm;
mod broken_glass;
mod catch_up;
pub mod compare;
pub mod conditions;
mod crowd;
mod elsewhere;
pub mod endpoints;
mod exceptions;
pub mod lease;
pub mod member;
pub mod openreports;
mod pauses;
pub mod promotion;
pub mod proof;
pub mod registrar;
mod repairs;
pub mod rights;
pub mod roll;
pub mod run;
mod said;
mod standing;
mod status;
pub mod webhooks;
pub mod would_denies;
