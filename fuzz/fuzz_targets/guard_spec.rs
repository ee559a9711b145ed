//! Specs of guards that libFuzzer finds.
#![no_main]

#[allow(dead_code, reason = "each target runs one of its functions")]
#[path = "../../tests/core/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::guard_spec(input));
