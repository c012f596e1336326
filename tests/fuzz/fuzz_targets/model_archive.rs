#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cocoon_tests::fuzz::run("model_archive", bytes));
