//! Bodies of requests: whatever comes is read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    specexit_serve::accepts(body);
});
