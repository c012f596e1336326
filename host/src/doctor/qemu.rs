//! QEMU: whether it is there, new enough, and built with what a platform needs.

use super::check::{Check, Rule, version};
use super::{Subject, Target};

const SNP: Rule = Rule {
    name: "qemu.version",
    want: "QEMU 9.1 or newer; 11.1.3 is recommended",
    fix: "install a newer QEMU (Debian: qemu-system-x86 of trixie-backports), or name one with --qemu",
};
const TDX: Rule = Rule { want: "QEMU 10.1 or newer; 11.1.3 is recommended", ..SNP };
/// Older ones cannot put the table of hashes into the memory of a VM.
const SIM: Rule = Rule { want: "QEMU 10.0 or newer", ..SNP };

const SNP_OBJECT: Rule = Rule {
    name: "qemu.object",
    want: "sev-snp-guest",
    fix: "this QEMU was built without it: install another, or name one with --qemu",
};
const TDX_OBJECT: Rule = Rule { want: "tdx-guest", ..SNP_OBJECT };

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    match subject.target {
        Target::Snp => vec![program(subject, &SNP, (9, 1)), object(subject, &SNP_OBJECT)],
        Target::Tdx => vec![program(subject, &TDX, (10, 1)), object(subject, &TDX_OBJECT)],
        Target::Sim => vec![program(subject, &SIM, (10, 0))],
        Target::None => Vec::new(),
    }
}

fn program(subject: &Subject<'_>, rule: &Rule, floor: (u32, u32)) -> Check {
    let program = &subject.options.qemu;
    let fix = format!("install QEMU, or name it with --qemu: {} does not run", program.display());
    let answer = match subject.machine.ask(program, &["--version"]) {
        Ok(answer) => answer,
        Err(error) => return rule.fail(format!("{}: {error}", program.display())).fix(fix),
    };
    let number = answer.split_once("QEMU emulator version ").map(|(_, rest)| rest);
    let Some(number) = number.and_then(|rest| rest.lines().next()) else {
        return rule.fail(format!("{} does not say its version", program.display())).fix(fix);
    };
    rule.must(version(number).is_some_and(|version| version >= floor), number)
}

fn object(subject: &Subject<'_>, rule: &Rule) -> Check {
    let answer = subject.machine.ask(&subject.options.qemu, &["-object", "help"]).unwrap_or_default();
    let knows = answer.split_ascii_whitespace().any(|word| word == rule.want);
    rule.must(knows, if knows { rule.want } else { "not among its objects" })
}
