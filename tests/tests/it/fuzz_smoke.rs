//! Every fuzz target on its seeds and some thousand mutations of them. libFuzzer goes on from there: `tests/fuzz`.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZero;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cocoon_attestation::receipt::{Receipt, ReceiptBundle, SignedReceipt};
use cocoon_attestation::snp::Product;
use cocoon_attestation::wire::{Cell, EpochStatement, encode_cell};
use cocoon_attestation::{Digest, Endorsement, EndorsementBundle};
use cocoon_tests::factory::Processor;
use cocoon_tests::fuzz::TARGETS;
use cocoon_tests::{repository, vectors};

const MUTATIONS: usize = 2000;

/// SplitMix64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 0xff, 0x7f, 0x80, 0x1b][random.below(5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at.min(bytes.len()), random.next() as u8),
            _ => bytes.extend_from_within(at.min(bytes.len())..),
        }
        bytes.truncate(300_000);
    }
    bytes
}

/// A receipt, signed and in a bundle, and a padded answer.
fn answers() -> [Vec<u8>; 4] {
    let zero = Digest([0; 32]);
    let finish_reason = "stop".to_owned();
    let receipt = Receipt {
        statement: zero,
        request: zero,
        response: zero,
        model: zero,
        prompt_tokens: 300,
        completion_tokens: 20,
        sequence: 1,
        finish_reason,
    };
    let signed = SignedReceipt { receipt: receipt.encode(), signature: [0; 64] };
    let statement =
        vectors::read("messages.txt").iter().find_map(|v| EpochStatement::decode(&v.bytes("bytes")).ok());
    let bundle = ReceiptBundle { signed: signed.clone(), statement: statement.unwrap() };
    let head = br#"  {"status":200,"headers":{"content-type":"text/event-stream"}}data: {}"#;
    let mut content = head.to_vec();
    content[1] = u8::try_from(head.len() - 10).unwrap();
    content[0] = 0;
    let cells = [Cell::Content(content), Cell::Content(Vec::new()), Cell::Receipt(signed.encode())];
    [receipt.encode(), signed.encode(), bundle.encode(), cells.iter().flat_map(encode_cell).collect()]
}

/// A tar archive with a file.
fn archive() -> Vec<u8> {
    let mut archive = vec![0; 2048];
    let mut put = |at: usize, bytes: &[u8]| archive[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"config.json");
    put(124, b"00000000002\0");
    put(148, b"        0");
    put(257, b"ustar\0");
    put(512, b"{}");
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = vectors::read("messages.txt").iter().map(|v| v.bytes("bytes")).collect();
    seeds.extend(vectors::read("frames.txt").iter().map(|v| v.bytes("header")));
    for file in [
        "docs/examples/policy.toml",
        "attestation/src/snp/roots/ark_genoa.der",
        "attestation/src/snp/roots/ask_turin.der",
        "tests/vectors/launch.fd",
        "tests/vectors/launch.efi",
        "tests/vectors/huggingface/llama/config.json",
        "tests/vectors/huggingface/gemma3/config.json",
        "tests/vectors/huggingface/mistral/model.safetensors",
        "tests/vectors/huggingface/qwen2/tokenizer.json",
        "tests/vectors/embedding/tiny/config.json",
        "tests/vectors/embedding/tiny/tokenizer.json",
        "tests/vectors/templates/qwen3.jinja",
        "tests/vectors/tokenizer/fragments.json",
    ] {
        seeds.push(std::fs::read(repository().join(file)).unwrap());
    }
    let chat = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"stop":["b"],"stream":true}"#;
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";
    let tools = r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":""}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"required","n":2}"#;
    let response = r#"{"model":"m","input":[{"role":"user","content":"a"}],"text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object"}}}}"#;
    let completion = r#"{"model":"m","prompt":["a"],"echo":false}"#;
    let schema = r##"{"type":"object","properties":{"a":{"type":"string","pattern":"^a+$"},"b":{"$ref":"#"}},"required":["a"]}"##;
    let vectors = r#"{"data":[{"index":0,"embedding":"AACAPw=="}],"usage":{"prompt_tokens":3}}"#;
    seeds.push(vectors.into());
    let call = "Wait.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [\"}\"]}}\n</tool_call>";
    seeds.extend([chat, template, tools, response, completion, schema, call].map(Into::into));
    let bert = r#"{"architectures":["BertModel"],"model_type":"bert","vocab_size":20,"hidden_size":16,"intermediate_size":16,
        "num_hidden_layers":1,"num_attention_heads":1,"max_position_embeddings":32,"type_vocab_size":1}"#;
    seeds.push(bert.into());
    seeds.push(archive());
    let mut gguf = vec![0; 4096];
    std::io::Read::read_exact(&mut std::fs::File::open(cocoon_tests::model()).unwrap(), &mut gguf).unwrap();
    seeds.push(gguf);
    let mut report = vec![0; cocoon_attestation::snp::REPORT_LEN];
    (report[0], report[0x34]) = (3, 1);
    seeds.extend([report, Vec::new()]);
    seeds.extend(answers());
    seeds.push(b"\x01\0\0\0\x03abc\0\0\0\0\0\x03\0\0\0\x01x\x02\0\0\0\0".to_vec());
    seeds.push(b"console=ttyS0 quiet cocoon.tee=sim cocoon.max-running=8".to_vec());
    seeds.push(
        b"version = 1\ndriver = \"580.95.05\"\npackage = []\n[[file]]\nname = \"libcuda.so.1\"\nsize = 1\n"
            .to_vec(),
    );
    seeds.extend(releases());
    seeds.extend(image());
    seeds.extend(processor());
    seeds.extend(corpus());
    seeds
}

/// A release in all its forms, and a policy that demands one.
fn releases() -> Vec<Vec<u8>> {
    let bundle = cocoon_tests::release::bundle();
    let proof = bundle.log.clone().unwrap();
    let texts =
        [proof.note.to_string(), proof.checkpoint().text(), cocoon_attestation::policy::init_released(0)];
    [vec![bundle.encode(), bundle.manifest.encode()], texts.map(String::into_bytes).into()].concat()
}

/// An initramfs and a manifest.
fn image() -> Vec<Vec<u8>> {
    let mut initramfs = cocoon_measurements::image::newc::Initramfs::new();
    initramfs.file("init", 0o555, b"#!".to_vec());
    initramfs.device("dev/console", 0o600, (5, 1));
    let entry = r#"{"path":"init","mode":"0100555","content":{"size":2,"sha256":"SHA"}}"#;
    let tool = r#"{"name":"rustc","package":"p 1","sha256":"SHA","locked":true}"#;
    let manifest = format!(
        r#"{{"format":"cocoon-image/1","profile":"cpu","simulated":false,"parts":{{"initrd":{{"size":1,"sha256":"SHA"}}}},
           "initrd":[{entry}],"config":"SHA","inputs":[],"lock":"SHA","toolchain":[{tool}],"not_locked":["x"]}}"#
    );
    let manifest = manifest.replace("SHA", &"ab".repeat(32)).into_bytes();
    assert!(serde_json::from_slice::<cocoon_measurements::image::manifest::Manifest>(&manifest).is_ok());
    vec![initramfs.encode().unwrap(), manifest, format!("rtmr1={}", "ab".repeat(48)).into_bytes()]
}

/// What a processor of the factory says, and what is stapled for it.
fn processor() -> Vec<Vec<u8>> {
    let genoa = Processor::of(Product::Genoa);
    let stapled = genoa.stapled();
    let mut seeds = vec![genoa.report.sign(), genoa.crl.issue(), EndorsementBundle(stapled.clone()).encode()];
    seeds.extend(stapled.iter().map(Endorsement::encode));
    seeds.extend(stapled.first().map(|vcek| certificate_table(&vcek.bytes)));
    // GET_QUOTE_RESP of version 1.0 with a quote of four bytes.
    seeds.push(hex::decode("01000000010000001c000000000000000000000004000000deadbeef").unwrap());
    seeds
}

/// What an SNP host gives its guest (AMD 56421): one entry, the end, a certificate.
fn certificate_table(vcek: &[u8]) -> Vec<u8> {
    let mut table = hex::decode("63da758de6644564adc5f4b93be8accd").unwrap();
    table.extend(48_u32.to_le_bytes());
    table.extend(u32::try_from(vcek.len()).unwrap().to_le_bytes());
    table.extend([0; 24]);
    table.extend_from_slice(vcek);
    table
}

/// Evidence and endorsements of real hardware, where they are at hand.
fn corpus() -> Vec<Vec<u8>> {
    let dir = repository().join("../shared/evidence");
    let files = [
        "tdx/v4-b0c06f/quote.bin",
        "tdx/v5-90c06f/quote.bin",
        "tdx/v4-00806f-gcp/ccel_data.bin",
        "tdx/collateral/b0c06f-2025-06/tcb_info.json",
        "tdx/collateral/b0c06f-2025-06/qe_identity.json",
        "tdx/collateral/b0c06f-2025-06/pck.crl.der",
        "tdx/collateral/b0c06f-2025-06/tcb_signing_chain.pem",
        "nvidia/h100-550.90.07-e2e/report.bin",
        "nvidia/h100-550.90.07-e2e/NV_GPU_DRIVER_GH100_550.90.07.swidtag",
        "nvidia/ocsp/h100-550.90.07-gpu_certificate_l2.ocsp.der",
    ];
    files.iter().filter_map(|file| std::fs::read(dir.join(file)).ok()).collect()
}

#[test]
fn no_target_panics() {
    let seeds = seeds();
    let mut random = Random(1);
    for (_, target) in TARGETS {
        seeds.iter().for_each(|seed| target(seed));
        for _ in 0..MUTATIONS {
            let seed = random.below(seeds.len());
            target(&mutate(&seeds[seed], &mut random));
        }
    }
}

/// What `scripts/test` runs for some seconds a target, and for 60 s with `--fuzz`: FUZZ_SECONDS. An input that panics is written to
/// `target/fuzz-failures`.
#[test]
#[ignore = "scripts/test runs it by itself, for longer than a test should take"]
fn no_target_panics_for_a_while() {
    #[expect(clippy::disallowed_methods, reason = "set by scripts/test")]
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (seeds, next) = (seeds(), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, target)) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = try_for(Duration::from_secs(seconds), name, *target, &seeds);
                    println!("{name}: {tried} inputs");
                }
            });
        }
    });
}

fn try_for(time: Duration, name: &str, target: fn(&[u8]), seeds: &[Vec<u8>]) -> u64 {
    // Other inputs in each run; what fails is kept, so that it need not be found again.
    let mut random = Random(RandomState::new().hash_one(name));
    let (start, mut tried) = (Instant::now(), 0);
    while start.elapsed() < time {
        let input = mutate(&seeds[random.below(seeds.len())], &mut random);
        if catch_unwind(|| target(&input)).is_err() {
            let folder = repository().join("target/fuzz-failures");
            let file = folder.join(format!("{name}-{:016x}", random.next()));
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, &input)).unwrap();
            panic!("{name} panics on {}", file.display());
        }
        tried += 1;
    }
    tried
}

#[test]
fn every_target_runs_under_libfuzzer_too() {
    let manifest = std::fs::read_to_string(repository().join("tests/fuzz/Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no [[bin]] in tests/fuzz");
    }
}
