//! The processor: vendor, what its flags say that the BIOS switched on, the bit that marks encrypted pages.

use super::check::{Check, Rule};
use super::{Subject, Target};
use crate::run::vm::qemu::C_BIT;

/// Encrypted memory: EBX bits 5:0 the C-bit, 11:6 by how many bits addresses are shorter (AMD 24594, CPUID 0x8000001F).
const MEMORY_ENCRYPTION_LEAF: u64 = 0x8000_001f;

const VENDOR: Rule = Rule {
    name: "cpu.vendor",
    want: "AuthenticAMD (EPYC 7003 or newer) for snp, GenuineIntel (Xeon of the 5th generation or newer) for tdx",
    fix: "use a machine with such a processor, or the --tee that fits this one",
};
const SNP_FLAGS: Rule = Rule {
    name: "cpu.flags",
    want: "sev, sev_es, sev_snp",
    fix: "in the BIOS, switch on SMEE, SEV-ES ASID space above 1, SEV-SNP support and RMP table coverage; the processor must be EPYC 7003 or newer",
};
const TDX_FLAGS: Rule = Rule {
    name: "cpu.flags",
    want: "tdx_host_platform",
    fix: "in the BIOS, switch on TME, TME-MT, TDX and SGX, with TDX key bits above 0; the processor must be a Xeon of the 5th generation or newer",
};
const ADDRESS: Rule = Rule {
    name: "cpu.c_bit",
    want: "51, as QEMU is told",
    fix: "load the kernel module cpuid and run as root, or look for EBX of `cpuid -1 -r -l 0x8000001f`: its last six bits must be 51",
};

/// What /proc/cpuinfo says of the first processor.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    vendor: String,
    flags: Vec<String>,
}

impl Cpu {
    pub(super) fn parse(text: &str) -> Self {
        let line = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim() == key).map_or("", |(_, value)| value.trim())
        };
        let flags = line("flags").split_ascii_whitespace().map(str::to_owned).collect();
        Self { vendor: line("vendor_id").to_owned(), flags }
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }

    /// Whether KVM on it can be a real one.
    pub(super) fn virtualizes(&self) -> bool {
        self.has("svm") || self.has("vmx")
    }

    /// What the vendor's processors may have.
    pub(super) fn target(&self) -> Target {
        match self.vendor.as_str() {
            "AuthenticAMD" => Target::Snp,
            "GenuineIntel" => Target::Tdx,
            _ => Target::None,
        }
    }
}

pub(super) fn checks(subject: &Subject<'_>) -> Vec<Check> {
    let rule = match subject.target {
        Target::Sim => return Vec::new(),
        Target::None => return vec![VENDOR.fail(&subject.cpu.vendor)],
        Target::Snp => SNP_FLAGS,
        Target::Tdx => TDX_FLAGS,
    };
    let mut out = vec![VENDOR.must(subject.cpu.target() == subject.target, &subject.cpu.vendor)];
    out.push(flags(&rule, &subject.cpu));
    if subject.target == Target::Snp {
        out.push(c_bit(subject));
    }
    out
}

fn flags(rule: &Rule, cpu: &Cpu) -> Check {
    let (have, lack): (Vec<&str>, Vec<&str>) = rule.want.split(", ").partition(|flag| cpu.has(flag));
    if lack.is_empty() {
        return rule.pass(have.join(", "));
    }
    let found = format!("no {}", lack.join(", "));
    if cpu.has("hypervisor") {
        let fix = "this machine is itself a virtual machine: use one that is not";
        return rule.fail(format!("{found}, in a virtual machine")).fix(fix);
    }
    rule.fail(found)
}

fn c_bit(subject: &Subject<'_>) -> Check {
    // The device gives EAX, EBX, ECX, EDX for the leaf that is the offset.
    let registers = subject.machine.registers("/dev/cpu/0/cpuid", MEMORY_ENCRYPTION_LEAF);
    let Ok([_, _, _, _, b0, b1, b2, b3, ..]) = registers else { return ADDRESS.warn("cannot be told") };
    let ebx = u32::from_le_bytes([b0, b1, b2, b3]);
    let (bit, reduction) = (ebx & 0x3f, ebx >> 6 & 0x3f);
    if bit == 0 {
        return ADDRESS.fail("none: this processor does not encrypt memory").fix(SNP_FLAGS.fix);
    }
    let found = format!("{bit}, addresses shorter by {reduction} bits");
    ADDRESS.must(bit == C_BIT, found).fix("report this processor: its C-bit is new to this version")
}
