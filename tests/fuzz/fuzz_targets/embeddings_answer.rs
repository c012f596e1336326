#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cocoon_tests::fuzz::run("embeddings_answer", bytes));
