//! The canonical form against the oracle, with inputs that libFuzzer finds.
#![no_main]

#[path = "../../tests/core/differential.rs"]
mod differential;
#[path = "../../tests/core/oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| differential::check(input));
