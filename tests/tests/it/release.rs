//! Releases from the signer to the client, over the real programs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use cocoon_attestation::release::ReleaseBundle;
use cocoon_tests::programs::{EnclaveProcess, HostProcess, binary, cocoon};
use cocoon_tests::vm::{Lab, SHAPE};
use cocoon_tests::{model, repository, sim_state};
use tempfile::TempDir;

const ORIGIN: &str = "log.test/releases";
const WITNESS: &str = "witness.test/w1";

/// What the enclave of these tests measures and states, without a release.
struct Facts {
    model: String,
    measurement: String,
    config: String,
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let output =
        Command::new(binary("cocoon-measure")).args(["model", "digest"]).arg(model()).output().unwrap();
    let model = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let enclave = EnclaveProcess::start_loading(&["--model-digest", &model]);
    let policy = enclave.policy_text();
    let value = |row: &str| {
        let line = policy.lines().find(|line| line.starts_with(&format!("{row} = "))).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    Facts { measurement: value("measurement"), config: value("config"), model }
});

/// Everybody who vouches for releases, with their keys and files.
struct Parties {
    dir: TempDir,
    keys: BTreeMap<&'static str, String>,
}

impl Parties {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("image/snp")).unwrap();
        std::fs::write(dir.path().join("image/vmlinuz"), b"a kernel").unwrap();
        std::fs::write(dir.path().join("image/snp/OVMF.amdsev.fd"), b"firmware").unwrap();
        let mut parties = Self { dir, keys: BTreeMap::new() };
        for name in ["alice", "bob", "carol", "log", "watcher", "dave", "mallory"] {
            let key = parties.measure(&["key", "create", &format!("{name}.pem")]);
            parties.keys.insert(name, key);
        }
        parties.measure(&["log", "init", "log", "--origin", ORIGIN, "--key", "log.pem", "--at", &ago(48)]);
        parties
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("cocoon-measure"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap()
    }

    fn measure(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What must be refused; gives why.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        said
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Where the sources of a release are, as arguments.
    fn sources(&self, measurement: &str) -> Vec<String> {
        let values =
            serde_json::json!({ "snp": [{ "vcpus": 1, "vcpu_type": "sim", "measurement": measurement }] });
        std::fs::write(self.path("reference.json"), values.to_string()).unwrap();
        let root = |file: &str| repository().join(file).to_str().unwrap().to_owned();
        let args = ["--insecure-development", "--image", "image", "--reference", "reference.json", "--lock"];
        let args = args.map(str::to_owned);
        [&args[..], &[root("measurements/inputs.lock"), "--cargo-lock".to_owned(), root("Cargo.lock")]]
            .concat()
    }

    fn create(&self, name: &str, measurement: &str, config: &str) {
        self.create_from(name, &[self.sources(measurement), with_config(config)].concat());
    }

    fn create_from(&self, name: &str, sources: &[String]) {
        let mut args = vec!["release", "create", "--version", name, "--source", "git:0123", "--out", name];
        args.extend(sources.iter().map(String::as_str));
        self.measure(&args);
    }

    fn sign(&self, name: &str, signers: &[&str]) {
        for signer in signers {
            self.measure(&["release", "sign", name, "--key", &format!("{signer}.pem")]);
        }
    }

    /// The log takes it in, two days ago; a witness cosigns.
    fn log(&self, name: &str) {
        self.measure(&["log", "append", "log", name, "--key", "log.pem", "--at", &ago(48)]);
        let log_key = &self.keys["log"];
        let witness = ["--name", WITNESS, "--origin", ORIGIN, "--log-key", log_key, "--key", "watcher.pem"];
        self.measure(&[&["log", "cosign", "log"], &witness[..]].concat());
        self.measure(&["log", "prove", "log", name]);
    }

    fn rebuild(&self, name: &str, measurement: &str, config: &str) {
        self.rebuild_from(name, &[self.sources(measurement), with_config(config)].concat());
    }

    fn rebuild_from(&self, name: &str, sources: &[String]) {
        let mut args = vec!["rebuild", "attest", name, "--key", "dave.pem"];
        args.extend(sources.iter().map(String::as_str));
        assert_eq!(self.measure(&args), self.keys["dave"]);
    }

    /// A release for which everybody vouches.
    fn release(&self, name: &str, measurement: &str, config: &str) -> String {
        self.create(name, measurement, config);
        self.sign(name, &["alice", "bob"]);
        self.log(name);
        self.rebuild(name, measurement, config);
        self.path(name)
    }

    /// The policy `text` with every row left to a release, and what is demanded of that.
    fn policy(&self, text: &str) -> String {
        let rows = ["measurement", "config", "release"];
        let line = |line: &str| {
            let row = rows.iter().find(|row| line.starts_with(&format!("{row} = ")));
            row.map_or_else(|| line.to_owned(), |row| format!("{row} = \"release\""))
        };
        let key = |name| &self.keys[name];
        let section = format!(
            "[release]\n\
             signers = {{ threshold = 2, keys = {{ alice = \"{}\", bob = \"{}\", carol = \"{}\" }} }}\n\
             created = {{ at_least = \"{}\" }}\n\
             log = {{ origin = \"{ORIGIN}\", key = \"{}\", max_age_days = 30 }}\n\
             witnesses = {{ threshold = 1, keys = {{ \"{WITNESS}\" = \"{}\" }} }}\n\
             rebuilds = {{ threshold = 1, keys = {{ dave = \"{}\" }} }}\n",
            key("alice"),
            key("bob"),
            key("carol"),
            ago(1),
            key("log"),
            key("watcher"),
            key("dave"),
        );
        let lines: Vec<_> = text.lines().map(line).collect();
        format!("{}\n\n{section}", lines.join("\n"))
    }

    /// `cocoon verify` under this policy: the exit code, and the factors that fail.
    fn verify(&self, address: &str, policy: &str) -> (Option<i32>, Vec<String>) {
        std::fs::write(self.path("policy.toml"), policy).unwrap();
        let output = cocoon(&["verify", address, "--policy", &self.path("policy.toml"), "--json"]);
        (output.status.code(), failed(&output))
    }
}

fn with_config(config: &str) -> Vec<String> {
    vec!["--config".to_owned(), config.to_owned()]
}

fn failed(output: &Output) -> Vec<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {error}"));
    let factors = report["factors"].as_array().unwrap().iter().filter(|factor| factor["status"] == "fail");
    factors.map(|factor| factor["name"].as_str().unwrap().to_owned()).collect()
}

fn ago(hours: u64) -> String {
    cocoon_attestation::UnixTime(cocoon_tests::enclave::now().0 - hours * 3600).to_string()
}

#[test]
fn a_released_enclave_is_accepted_and_every_demand_has_a_refusal() {
    let (facts, parties) = (&*FACTS, Parties::new());
    let release = parties.release("good", &facts.measurement, &facts.config);
    let host = HostProcess::start(&["--model-digest", &facts.model, "--release", &release]);
    let plain = std::fs::read_to_string(host.policy()).unwrap();
    let policy = parties.policy(&plain);
    assert_eq!(parties.verify(&host.address, &policy), (Some(0), Vec::new()));
    assert_eq!(parties.verify(&host.address, &plain), (Some(0), Vec::new()), "a policy that does not ask");

    let key = |name: &str| parties.keys[name].clone();
    let two_rebuilders = format!("rebuilds = {{ threshold = 2, keys = {{ erin = \"{}\", ", key("mallory"));
    for (from, to, want) in [
        ("threshold = 2".to_owned(), "threshold = 3".to_owned(), vec!["release.signatures"]),
        (key("bob"), key("mallory"), vec!["release.signatures"]),
        (ago(1)[..13].to_owned(), "2099-01-01T00".to_owned(), vec!["release.created"]),
        (key("log"), key("mallory"), vec!["release.log", "release.expiry"]),
        (ORIGIN.to_owned(), "other.test".to_owned(), vec!["release.log", "release.expiry"]),
        ("max_age_days = 30".to_owned(), "max_age_days = 1".to_owned(), vec!["release.expiry"]),
        (key("watcher"), key("mallory"), vec!["release.witnesses"]),
        (key("dave"), key("mallory"), vec!["release.rebuilds"]),
        ("rebuilds = { threshold = 1, keys = { ".to_owned(), two_rebuilders, vec!["release.rebuilds"]),
    ] {
        assert!(policy.contains(&from), "{from}");
        let (code, failed) = parties.verify(&host.address, &policy.replacen(&from, &to, 1));
        let rest = ["snp.measurement", "claims.config", "claims.release"];
        assert_eq!(
            (code, failed),
            (Some(1), [&want[..], &rest[..]].concat().iter().map(|s| (*s).to_owned()).collect()),
            "{to}"
        );
    }
    // Without the section, no row can say "release".
    std::fs::write(parties.path("policy.toml"), policy.split("[release]").next().unwrap()).unwrap();
    let output = cocoon(&["verify", &host.address, "--policy", &parties.path("policy.toml")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no section [release]"));
    what_was_saved_says_the_same(&parties, &host, &policy);
}

fn what_was_saved_says_the_same(parties: &Parties, host: &HostProcess, policy: &str) {
    std::fs::write(parties.path("policy.toml"), policy).unwrap();
    let (policy, saved) = (parties.path("policy.toml"), parties.path("saved.bin"));
    let output = cocoon(&["verify", &host.address, "--policy", &policy, "--save", &saved]);
    assert!(output.status.success());
    let output = cocoon(&["inspect", "bundle", &saved, "--policy", &policy, "--json"]);
    assert_eq!((output.status.code(), failed(&output)), (Some(0), Vec::new()));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["claims"]["release_version"], "good");
    assert_eq!(report["claims"]["release_source"], "git:0123");
    parties.measure(&["release", "verify", "good", "--policy", &policy]);
    let words = cocoon(&["policy", "explain", &policy]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("Releases: those that 2 of alice, bob, carol signed."), "{words}");
}

#[test]
fn enclaves_whose_release_is_not_what_the_policy_demands() {
    let (facts, parties) = (&*FACTS, Parties::new());
    let (measurement, config) = (&facts.measurement, &facts.config);
    let good = parties.release("good", measurement, config);
    let copy = |name: &str, change: &dyn Fn(&mut ReleaseBundle)| {
        let mut bundle = ReleaseBundle::decode(&std::fs::read(&good).unwrap()).unwrap();
        change(&mut bundle);
        std::fs::write(parties.path(name), bundle.encode()).unwrap();
        parties.path(name)
    };
    let altered = copy("altered", &|bundle| bundle.manifest.source.push('4'));
    let unlogged = copy("unlogged", &|bundle| bundle.log = None);
    parties.create("half", measurement, config);
    parties.sign("half", &["alice", "mallory"]);
    parties.log("half");
    parties.rebuild("half", measurement, config);
    parties.create("alone", measurement, config);
    parties.sign("alone", &["bob", "carol"]);
    parties.log("alone");
    let other_software = parties.release("other-software", &"ab".repeat(48), config);
    let other_config = parties.release("other-config", measurement, &"ab".repeat(32));

    let unvouched = ["snp.measurement", "claims.config", "claims.release"];
    let with = |names: &[&'static str]| [names, &unvouched[..]].concat();
    for (release, want) in [
        (Some(good.clone()), Vec::new()),
        (Some(altered), with(&["release.signatures", "release.log", "release.rebuilds"])),
        (Some(unlogged), with(&["release.log", "release.expiry", "release.witnesses"])),
        (Some(parties.path("half")), with(&["release.signatures"])),
        (Some(parties.path("alone")), with(&["release.rebuilds"])),
        (Some(other_software), vec!["snp.measurement"]),
        (Some(other_config), vec!["claims.config"]),
        (
            None,
            with(&[
                "release.signatures",
                "release.created",
                "release.log",
                "release.expiry",
                "release.witnesses",
                "release.rebuilds",
            ]),
        ),
    ] {
        let mut flags = vec!["--model-digest", &facts.model];
        flags.extend(release.iter().flat_map(|path| ["--release", path.as_str()]));
        let enclave = EnclaveProcess::start_loading(&flags);
        let (code, failed) = parties.verify(&enclave.address, &parties.policy(&enclave.policy_text()));
        assert_eq!(
            (code, failed.iter().map(String::as_str).collect()),
            (Some(i32::from(!want.is_empty())), want)
        );
    }
    an_unusable_file_is_named(&parties);
}

fn an_unusable_file_is_named(parties: &Parties) {
    std::fs::write(parties.path("garbage"), b"garbage").unwrap();
    for (name, why) in [("garbage", "malformed release bundle"), ("nowhere", "No such file")] {
        let output = Command::new(binary("cocoon-enclave"))
            .args(["--tee", "sim", "--listen", "127.0.0.1:0", "--release", &parties.path(name), "--model"])
            .arg(model())
            .arg("--sim-state")
            .arg(sim_state())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--release") && said.contains(why), "{said}");
    }
}

#[test]
fn the_signers_tools_refuse_what_clients_would() {
    let parties = Parties::new();
    let measurement = "ab".repeat(48);
    parties.release("good", &measurement, &"cd".repeat(32));
    let key = |name: &str| parties.keys[name].as_str();
    parties.measure(&["release", "verify", "good", "--signer", key("alice"), key("bob")]);
    let said = parties.refused(&["release", "verify", "good", "--signer", key("alice"), key("carol")]);
    assert!(said.contains("release.signatures"), "{said}");
    let of_three = ["--signer", key("alice"), key("bob"), key("carol"), "--threshold", "2"];
    parties.measure(&[&["release", "verify", "good"], &of_three[..]].concat());
    parties.measure(&["rebuild", "verify", "good", "--rebuilder", key("dave")]);
    let said = parties.refused(&["rebuild", "verify", "good", "--rebuilder", key("mallory")]);
    assert!(said.contains("release.rebuilds"), "{said}");
    let shown = parties.measure(&["release", "show", "good", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["manifest"]["snp"][0]["measurement"], measurement);
    assert_eq!(shown["log"]["origin"], ORIGIN);

    // A rebuild that differs in one byte, or in what it was made of.
    std::fs::write(parties.path("image/vmlinuz"), b"b kernel").unwrap();
    let sources = [parties.sources(&measurement), with_config(&"cd".repeat(32))].concat();
    let attest = |sources: &[String]| {
        let mut args = vec!["rebuild", "attest", "good", "--key", "dave.pem"];
        args.extend(sources.iter().map(String::as_str));
        parties.refused(&args)
    };
    let said = attest(&sources);
    assert!(
        said.contains("vmlinuz: released 8 bytes") && said.contains("differs from the release in 1 "),
        "{said}"
    );
    std::fs::write(parties.path("image/vmlinuz"), b"a kernel").unwrap();
    // A configuration that only the signers name.
    let said = attest(&parties.sources(&measurement));
    let alone = format!("config {}: released, neither the image's own nor confirmed", "cd".repeat(32));
    assert!(said.contains(&alone), "{said}");
    let said = attest(&[parties.sources(&measurement), with_config(&"ce".repeat(32))].concat());
    assert!(said.contains(&alone) && said.contains(": yours, not released"), "{said}");
    let said = attest(&parties.sources(&"00".repeat(48)));
    assert!(said.contains("SNP reference values: others than released"), "{said}");

    images_for_development_are_not_released(&parties, &sources);
    what_the_log_keeps_of_a_release_stays(&parties);

    // Copies that several people signed become one; of another release they do not.
    parties.create("other", &measurement, &"ee".repeat(32));
    assert!(parties.refused(&["release", "merge", "good", "other"]).contains("another release"));
    std::fs::copy(parties.path("other"), parties.path("other2")).unwrap();
    parties.sign("other", &["alice"]);
    parties.sign("other2", &["bob"]);
    parties.measure(&["release", "merge", "other", "other2"]);
    parties.measure(&["release", "verify", "other", "--signer", key("alice"), key("bob")]);
    assert!(parties.refused(&["log", "prove", "log", "other"]).contains("not in the log"));
    // The second implementation reads what the first wrote.
    let script = repository().join("tests/log/check.py");
    let witness = format!("{WITNESS}={}", key("watcher"));
    let args =
        ["release", "good", "--signer", key("alice"), "--signer", key("bob"), "--rebuilder", key("dave")];
    let log = ["--origin", ORIGIN, "--key", key("log"), "--witness", &witness];
    let output =
        Command::new("python3").arg(script).args(args).args(log).current_dir(parties.dir.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    policies_that_say_nothing_of_releases(&parties);
}

fn images_for_development_are_not_released(parties: &Parties, sources: &[String]) {
    let checked: Vec<_> =
        sources.iter().map(String::as_str).filter(|arg| !arg.starts_with("--insec")).collect();
    for command in [
        &["release", "create", "--version", "1", "--source", "git:0123", "--out", "never"][..],
        &["rebuild", "attest", "good", "--key", "dave.pem", "--out", "never"],
    ] {
        let said = parties.refused(&[command, &checked].concat());
        assert!(said.contains("image/manifest.json: there is none"), "{said}");
        assert!(!parties.dir.path().join("never").exists());
    }
}

fn what_the_log_keeps_of_a_release_stays(parties: &Parties) {
    let good = ReleaseBundle::decode(&std::fs::read(parties.path("good")).unwrap()).unwrap();
    let bare = ReleaseBundle::new(good.manifest.clone());
    std::fs::write(parties.path("bare"), bare.encode()).unwrap();
    parties.measure(&["log", "append", "log", "good", "--key", "log.pem"]);
    parties.measure(&["log", "append", "log", "bare", "--key", "log.pem"]);
    let kept = parties.path(&format!("log/release/{}.cbor", good.digest()));
    assert_eq!(std::fs::read(&kept).unwrap(), good.encode());
    std::fs::write(&kept, b"garbage").unwrap();
    let said = parties.refused(&["log", "append", "log", "bare", "--key", "log.pem"]);
    assert!(said.contains("malformed release bundle"), "{said}");
    std::fs::write(&kept, good.encode()).unwrap();
}

fn policies_that_say_nothing_of_releases(parties: &Parties) {
    let example: PathBuf = repository().join("docs/examples/policy.toml");
    let output = parties.run(&["release", "verify", "good", "--policy", example.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no section [release]"));
    let template = cocoon(&["policy", "init", "--release"]);
    std::fs::write(parties.path("template.toml"), template.stdout).unwrap();
    let said = parties.refused(&["release", "verify", "good", "--policy", "template.toml"]);
    assert!(
        said.contains("release.signatures, release.log, release.expiry, release.witnesses, release.rebuilds")
    );
}

/// From the image that was built to a client that accepts the VM that it boots as, in the words of a release alone.
#[test]
fn a_released_image_is_accepted_where_it_boots_and_nowhere_else() {
    let Some(lab) = Lab::open() else { return };
    let parties = Parties::new();
    let image = lab.image.to_str().unwrap();
    let predict = [&["predict", "snp", "--json", "--image", image][..], &SHAPE].concat();
    std::fs::write(parties.path("shape.json"), parties.measure(&predict)).unwrap();
    let root = |file: &str| repository().join(file).to_str().unwrap().to_owned();
    let sources = [
        ["--insecure-development", "--image", image, "--reference", "shape.json", "--lock"]
            .map(str::to_owned)
            .to_vec(),
        vec![root("measurements/inputs.lock"), "--cargo-lock".to_owned(), root("Cargo.lock")],
    ]
    .concat();
    parties.create_from("image.release", &sources);
    parties.sign("image.release", &["alice", "bob"]);
    parties.log("image.release");
    parties.rebuild_from("image.release", &sources);
    let policy = parties.policy(&std::fs::read_to_string(lab.policy()).unwrap());

    let release = parties.path("image.release");
    let mut vm = lab.boot(&lab.image, &["--release", &release]);
    assert_eq!(parties.verify(&vm.ready(), &policy), (Some(0), Vec::new()), "{}", vm.0.output());
    drop(vm);
    let other = lab.with_command_line("other", |line| line.replace("quiet", "quieT"));
    let mut vm = lab.boot(&other, &["--release", &release]);
    assert_eq!(parties.verify(&vm.ready(), &policy), (Some(1), vec!["snp.measurement".to_owned()]));
}
