//! Data of the Secret of authorities, as libFuzzer finds it.
#![no_main]

// Each target runs one of its functions.
#[allow(dead_code)]
#[path = "../../tests/core/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::authorities(input));
