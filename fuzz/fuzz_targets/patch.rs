#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| istio_tests::fuzz::parsers::patch(data));
