//! What sources of truth answer, with texts that libFuzzer finds.
#![no_main]

// Each target runs one of its functions.
#[allow(dead_code)]
#[path = "../../tests/core/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::sources(input));
