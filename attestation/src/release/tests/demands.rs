//! Every demand of a policy has a refusal.

use super::*;
use crate::policy::{Policy, ReleasePolicy, init, init_released};
use crate::release::verify;
use crate::result::{Factor, Status};

const ROWS: [&str; 6] = [
    "release.signatures",
    "release.created",
    "release.log",
    "release.expiry",
    "release.witnesses",
    "release.rebuilds",
];

fn policy_of(section: &str) -> Result<ReleasePolicy, String> {
    let text = format!("{}\n{section}", init(0));
    Policy::from_toml(&text).map(|policy| policy.release.unwrap()).map_err(|error| error.to_string())
}

fn failed(factors: &[Factor]) -> Vec<&'static str> {
    factors.iter().filter(|f| f.status == Status::Fail).map(|f| f.name).collect()
}

/// Names of the factors that fail for a bundle that was changed.
fn failures(change: impl Fn(&mut ReleaseBundle)) -> Vec<&'static str> {
    let mut bundle = vouched(manifest());
    change(&mut bundle);
    failed(&verify(&bundle, &policy_of(&section()).unwrap(), NOW))
}

fn at(now: u64) -> Vec<&'static str> {
    failed(&verify(&vouched(manifest()), &policy_of(&section()).unwrap(), UnixTime(now)))
}

fn note(change: impl Fn(&mut Note)) -> Vec<&'static str> {
    failures(|bundle| {
        let proof = bundle.log.as_ref().unwrap();
        let mut note = proof.note.clone();
        change(&mut note);
        bundle.log = Some(LogProof::new(proof.index, proof.path.clone(), note).unwrap());
    })
}

#[test]
fn a_release_that_everybody_vouches_for_is_accepted() {
    let factors = verify(&vouched(manifest()), &policy_of(&section()).unwrap(), NOW);
    assert_eq!(factors.iter().map(|f| f.name).collect::<Vec<_>>(), ROWS);
    assert!(factors.iter().all(|f| f.status == Status::Pass), "{factors:?}");
    assert_eq!(factors[0].got.as_deref(), Some("alice, bob"));
    assert_eq!(factors[2].got.as_deref(), Some("entry 2 of 5"));
}

#[test]
fn too_few_other_or_wrong_signers() {
    let only = |seeds: &[u8]| {
        let mut bundle = ReleaseBundle::new(manifest());
        for seed in seeds {
            bundle.sign(Key::of(*seed).release(bundle.digest())).unwrap();
        }
        let vouched = vouched(manifest());
        bundle.log = vouched.log.clone();
        bundle.attest_rebuild(vouched.rebuilds()[0]).unwrap();
        failed(&verify(&bundle, &policy_of(&section()).unwrap(), NOW))
    };
    assert_eq!(only(&[]), ["release.signatures"]);
    assert_eq!(only(&[ALICE]), ["release.signatures"]);
    assert_eq!(only(&[ALICE, REBUILDER]), ["release.signatures"], "a key that signs other things");
    assert!(only(&[BOB, CAROL]).is_empty() && only(&[ALICE, BOB, CAROL, 77]).is_empty());
    // A signature over something else in the name of one who would not be needed.
    let forged = |bundle: &mut ReleaseBundle| bundle.sign(Key::of(CAROL).release(Digest([0; 32]))).unwrap();
    assert_eq!(failures(forged), ["release.signatures"]);
    // What a rebuilder signs is no release, and the other way round.
    let swapped = |bundle: &mut ReleaseBundle| {
        let signature = Key::of(CAROL).sign(&rebuild_message(bundle.digest(), NOW));
        bundle.sign(ReleaseSignature { key: Key::of(CAROL).public(), signature }).unwrap();
    };
    assert_eq!(failures(swapped), ["release.signatures"]);
}

#[test]
fn an_altered_manifest_is_vouched_for_by_nobody() {
    let altered = failures(|bundle| bundle.manifest.source.push('0'));
    assert_eq!(altered, ["release.signatures", "release.log", "release.rebuilds"]);
}

#[test]
fn old_releases() {
    let made = |seconds: u64| {
        let manifest = ReleaseManifest { created: UnixTime(NOW.0 - seconds), ..manifest() };
        failed(&verify(&vouched(manifest), &policy_of(&section()).unwrap(), NOW))
    };
    assert!(made(0).is_empty() && made(7200).is_empty());
    assert_eq!(made(7201), ["release.created"]);
}

#[test]
fn rebuilds_that_are_missing_of_another_time_or_of_the_future() {
    let with = |rebuild: Rebuild| failures(|bundle| bundle.attest_rebuild(rebuild).unwrap());
    let digest = manifest().digest();
    let good = Key::of(REBUILDER).rebuild(digest, NOW);
    assert!(with(good).is_empty());
    assert_eq!(with(Rebuild { time: UnixTime(1), ..good }), ["release.rebuilds"]);
    assert!(with(Key::of(REBUILDER).rebuild(digest, UnixTime(NOW.0 + 300))).is_empty());
    assert_eq!(with(Key::of(REBUILDER).rebuild(digest, UnixTime(NOW.0 + 301))), ["release.rebuilds"]);
    let none = |bundle: &mut ReleaseBundle| {
        let mut bare = ReleaseBundle::new(bundle.manifest.clone());
        bundle.signatures().iter().for_each(|one| bare.sign(*one).unwrap());
        bare.log = bundle.log.take();
        *bundle = bare;
    };
    assert_eq!(failures(none), ["release.rebuilds"]);
}

#[test]
fn not_logged_or_logged_elsewhere() {
    let all = ["release.log", "release.expiry", "release.witnesses"];
    assert_eq!(failures(|bundle| bundle.log = None), all);
    assert_eq!(failures(|bundle| bundle.log.as_mut().unwrap().index = 3), ["release.log"]);
    assert_eq!(failures(|bundle| bundle.log.as_mut().unwrap().path.truncate(1)), ["release.log"]);
    let proof_of = |origin: &str, log: u8| {
        failures(|bundle| {
            let old = bundle.log.clone().unwrap();
            let checkpoint = Checkpoint { origin: origin.to_owned(), ..old.checkpoint().clone() };
            let text = checkpoint.text();
            let mut note = Note::new(text.clone());
            note.sign(Key::of(log).note(origin, &text));
            note.sign(Key::of(log).cosign(origin, &text, NOW));
            note.sign(Key::of(WATCHER).cosign(WITNESS, &text, NOW));
            bundle.log = Some(LogProof::new(old.index, old.path, note).unwrap());
        })
    };
    assert!(proof_of(ORIGIN, LOG).is_empty());
    assert_eq!(proof_of("other.test", LOG), ["release.log", "release.expiry"]);
    assert_eq!(proof_of(ORIGIN, 99), ["release.log", "release.expiry"]);
}

#[test]
fn checkpoints_that_are_not_signed_or_not_timed_by_the_log() {
    let log = Key::of(LOG);
    let without = |kind| {
        note(|note| {
            let id = key_id(ORIGIN, kind, &Key::of(LOG).public());
            let lines: Vec<_> = note.signatures().iter().filter(|line| line.id != id).cloned().collect();
            *note = Note::new(note.text().to_owned());
            lines.into_iter().for_each(|line| note.sign(line));
        })
    };
    assert_eq!(without(NoteKind::Ed25519), ["release.log"]);
    assert_eq!(without(NoteKind::Cosignature), ["release.expiry"]);
    let other = |line: NoteSignature| note(|note| note.sign(line.clone()));
    assert_eq!(other(log.note(ORIGIN, "another text\n")), ["release.log"]);
    assert_eq!(other(log.cosign(ORIGIN, "another text\n", NOW)), ["release.expiry"]);
    let id = key_id(ORIGIN, NoteKind::Cosignature, &log.public());
    let short = NoteSignature { name: ORIGIN.to_owned(), id, signature: vec![0; 7] };
    assert_eq!(other(short), ["release.expiry"]);
    // The time is signed: an old cosignature does not become young.
    let mut young = log.cosign(ORIGIN, proof(&manifest(), NOW).note.text(), UnixTime(1));
    young.signature[..8].copy_from_slice(&NOW.0.to_be_bytes());
    assert_eq!(other(young), ["release.expiry"]);
    let text = proof(&manifest(), NOW).note.text().to_owned();
    assert_eq!(other(log.cosign(ORIGIN, &text, UnixTime(1 << 63))), ["release.expiry"], "no time");
}

#[test]
fn proofs_expire() {
    let made = NOW.0 - 3600;
    let age = 30 * 24 * 3600;
    assert!(at(made + age).is_empty());
    assert_eq!(at(made + age + 1), ["release.expiry", "release.witnesses"]);
    assert!(at(made - 300).is_empty(), "clocks differ");
    assert_eq!(at(made - 301), ["release.expiry", "release.witnesses", "release.rebuilds"]);
}

#[test]
fn witnesses_that_are_missing_or_saw_something_else() {
    let watcher = Key::of(WATCHER);
    let text = proof(&manifest(), NOW).note.text().to_owned();
    let other = |line: NoteSignature| note(|note| note.sign(line.clone()));
    assert!(other(watcher.cosign(WITNESS, &text, NOW)).is_empty());
    assert_eq!(other(watcher.cosign(WITNESS, "another\n", NOW)), ["release.witnesses"]);
    assert!(other(Key::of(77).cosign("other.test", "another\n", NOW)).is_empty(), "nobody that is known");
    let mut unseen = vouched(manifest());
    unseen.log = Some(proof(&manifest(), NOW));
    assert_eq!(failed(&verify(&unseen, &policy_of(&section()).unwrap(), NOW)), ["release.witnesses"]);
}

/// A log that nobody watches any more renews its own time, and that is not enough.
#[test]
fn witnesses_of_another_time_do_not_count_and_are_no_forgers() {
    let (age, text) = (30 * 24 * 3600, proof(&manifest(), NOW).note.text().to_owned());
    let cosigned = |section: &str, time: u64| {
        let mut bundle = vouched(manifest());
        let line = Key::of(WATCHER).cosign(WITNESS, &text, UnixTime(time));
        bundle.log.as_mut().unwrap().note.sign(line);
        verify(&bundle, &policy_of(section).unwrap(), NOW).remove(4)
    };
    for time in [NOW.0 - age, NOW.0 + 300] {
        assert_eq!(cosigned(&section(), time).status, Status::Pass, "{time}");
    }
    for (time, why) in [(NOW.0 - age - 1, "more than 30 days ago"), (NOW.0 + 301, "in the future")] {
        let factor = cosigned(&section(), time);
        let got = factor.got.unwrap();
        assert_eq!((factor.name, factor.status), ("release.witnesses", Status::Fail));
        assert!(got.starts_with(&format!("nobody; not counted: {WITNESS} (cosigned at ")), "{got}");
        assert!(got.contains(why) && !got.contains("wrong"), "{got}");
    }
    // Its age is that of the policy.
    let ten = section().replacen("max_age_days = 30", "max_age_days = 10", 1);
    assert_eq!(cosigned(&ten, NOW.0 - age).status, Status::Fail);
    // Without a log there is no age; only policies that are made by programs can say so.
    let log = crate::policy::LogDemand::Unchecked { why: "test".to_owned() };
    let policy = ReleasePolicy { log, ..policy_of(&section()).unwrap() };
    assert_eq!(failed(&verify(&vouched(manifest()), &policy, NOW)), ["release.witnesses"]);
}

/// One stale witness does not spoil the word of others.
#[test]
fn a_stale_witness_beside_a_fresh_one() {
    let second = format!("keys = {{ \"w2.test\" = \"{}\", \"{WITNESS}\"", Key::of(77).public());
    let section = section().replacen(&format!("keys = {{ \"{WITNESS}\""), &second, 1);
    assert!(section.contains("w2.test"), "{section}");
    let mut bundle = vouched(manifest());
    let note = &mut bundle.log.as_mut().unwrap().note;
    let line = Key::of(77).cosign("w2.test", note.text(), UnixTime(1));
    note.sign(line);
    let factor = verify(&bundle, &policy_of(&section).unwrap(), NOW).remove(4);
    assert_eq!(factor.status, Status::Pass, "{factor:?}");
    assert!(factor.got.unwrap().starts_with(&format!("{WITNESS}; not counted: w2.test (cosigned at 1970")));
}

#[test]
fn what_is_not_looked_at_says_why() {
    let unchecked = "{ unchecked = \"test\" }";
    let mut text = String::new();
    for line in section().lines() {
        let name = line.split(" = ").next().unwrap();
        let open = ["created", "log", "witnesses", "rebuilds"].contains(&name);
        text += &if open { format!("{name} = {unchecked}\n") } else { format!("{line}\n") };
    }
    let mut bare = ReleaseBundle::new(manifest());
    [ALICE, BOB].into_iter().for_each(|seed| bare.sign(Key::of(seed).release(bare.digest())).unwrap());
    for bundle in [bare, vouched(manifest())] {
        let factors = verify(&bundle, &policy_of(&text).unwrap(), NOW);
        assert_eq!(factors[0].status, Status::Pass);
        assert!(
            factors[1..].iter().all(|f| f.status == Status::Unchecked && f.help.as_deref() == Some("test"))
        );
    }
    let words = Policy::from_toml(&format!("{}\n{text}", init(0))).unwrap().explain().join("\n");
    assert!(words.contains("release.expiry"), "{words}");
}

#[test]
fn sections_that_make_no_sense_are_refused() {
    let refused = |from: &str, to: &str| {
        let text = section();
        assert!(text.contains(from), "{from}");
        policy_of(&text.replacen(from, to, 1)).unwrap_err()
    };
    let key = |seed| Key::of(seed).public().to_string();
    assert!(refused("threshold = 2", "threshold = 0").contains("threshold 0 of 3"));
    assert!(refused("threshold = 2", "threshold = 4").contains("threshold 4 of 3"));
    assert!(refused("threshold = 2", "threshold = -1").contains("invalid value"));
    assert!(refused(&key(BOB), &key(ALICE)).contains("twice, under two names"));
    assert!(refused(&key(REBUILDER), &key(ALICE)).contains("has two parts"));
    assert!(refused(&key(WATCHER), &key(LOG)).contains("has two parts"));
    assert!(refused(&key(BOB), &format!("01{}", "00".repeat(31))).contains("small order"));
    assert!(refused(&key(BOB), "00").contains("64 hex digits"));
    assert!(refused("alice", "\"\"").contains("visible ASCII"));
    assert!(refused("alice", "\"\\u001b\"").contains("visible ASCII"));
    assert!(refused("alice", &"a".repeat(65)).contains("1 to 64"));
    assert!(policy_of(&section().replacen("alice", &"a".repeat(64), 1)).is_ok());
    assert!(refused("max_age_days = 30", "max_age_days = 0").contains("expected 1 to 3650"));
    assert!(refused("max_age_days = 30", "max_age_days = 3651").contains("expected 1 to 3650"));
    assert!(policy_of(&section().replacen("max_age_days = 30", "max_age_days = 3650", 1)).is_ok());
    assert!(refused(", max_age_days = 30", "").contains("max_age_days, or unchecked"));
    assert!(refused("max_age_days = 30", "max_age_days = 30, unchecked = \"x\"").contains("unchecked alone"));
    assert!(refused("max_age_days = 30", "max_age_days = 30, x = 1").contains("unknown field"));
    assert!(refused("origin = \"log.test/releases\"", "origin = \"log test\"").contains("no name of a key"));
    assert!(refused(WITNESS, "a+b").contains("no name of a key"));
    assert!(
        refused("rebuilds = { threshold = 1,", "rebuilds = { unchecked = \"x\",").contains("unchecked alone")
    );
    assert!(refused("signers", "signer").contains("signer"));
    let without = |row: &str, instead: &str| {
        let lines: Vec<_> = section().lines().map(str::to_owned).collect();
        let change = |line: &String| if line.starts_with(row) { instead.to_owned() } else { line.clone() };
        policy_of(&lines.iter().map(change).collect::<Vec<_>>().join("\n")).unwrap_err()
    };
    for row in ["signers", "created", "log", "witnesses", "rebuilds"] {
        assert!(without(row, "").contains(&format!("missing field `{row}`")), "{row}");
    }
    assert!(without("signers", "signers = { unchecked = \"x\" }").contains("unchecked"));
    assert!(without("created", "created = { at_least = \"1970-01-01T00:00:00Z\" }").contains("every value"));
    assert!(without("created", "created = { at_least = \"2026\" }").contains("expected a time"));
    assert!(without("log", "log = { unchecked = \"x\" }").contains("nothing to witness"));
    assert!(without("log", "log = { unchecked = \" \" }").contains("say why"));
    assert!(without("rebuilds", "rebuilds = { unchecked = \"\" }").contains("say why"));
    let keys = |n: u8| {
        let all: Vec<_> = (10..10 + n).map(|seed| format!("k{seed} = \"{}\"", key(seed))).collect();
        let signers = format!("signers = {{ threshold = 1, keys = {{ {} }} }}", all.join(", "));
        let lines: Vec<_> = section().lines().skip(2).map(str::to_owned).collect();
        policy_of(&format!("[release]\n{signers}\n{}", lines.join("\n")))
    };
    assert!(keys(16).is_ok());
    assert!(keys(17).unwrap_err().contains("at most 16"));
}

#[test]
fn no_row_says_release_without_the_section() {
    let text = init_released(0);
    let policy = Policy::from_toml(&text).unwrap();
    let words = policy.explain().join("\n");
    let open = "fill in claims.model, release.signatures, release.log, release.witnesses, release.rebuilds.";
    assert!(words.contains(open), "{words}");
    assert!(words.contains("as the verified release says"));
    for row in ["measurement", "mr_td", "rtmr0", "rtmr1", "rtmr2", "config", "release"] {
        let plain = init(0);
        let old = plain.lines().find(|line| line.starts_with(&format!("{row} = "))).unwrap();
        let error = Policy::from_toml(&plain.replacen(old, &format!("{row} = \"release\""), 1)).unwrap_err();
        assert!(error.to_string().contains("no section [release]"), "{row}: {error}");
    }
    let vmpl = text.replacen("vmpl = { exactly = 0 }", "vmpl = \"release\"", 1);
    assert!(Policy::from_toml(&vmpl).unwrap_err().to_string().contains("says nothing of this row"));
}

/// With its zeros, the template accepts no release, whoever makes it.
#[test]
fn the_template_accepts_nothing() {
    let policy = Policy::from_toml(&init_released(0)).unwrap().release.unwrap();
    let mut bundle = ReleaseBundle::new(manifest());
    let mut signature = [0; 64];
    signature[0] = 1;
    bundle.sign(ReleaseSignature { key: PublicKey([0; 32]), signature }).unwrap();
    for n in 0..64 {
        bundle.manifest.created = UnixTime(n);
        assert!(failed(&verify(&bundle, &policy, NOW)).contains(&"release.signatures"));
    }
}
