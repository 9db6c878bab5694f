#![no_main]

#[path = "../../tests/fuzzed/targets.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::read_retry_after(data));
