//! Specs of guards that libFuzzer finds.
#![no_main]

// Each target runs one of its functions.
#[allow(dead_code)]
#[path = "../../tests/core/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::guard_spec(input));
