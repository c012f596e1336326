//! Processors by QEMU's names.

use std::fmt;
use std::str::FromStr;

use sev::measurement::vcpu_types::CpuType;

use crate::predict::Error;

/// A processor that QEMU can show to a guest, by one of QEMU's names. Only its CPUID signature is measured: family, model, stepping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcpuType {
    name: &'static str,
    processor: CpuType,
}

impl Eq for VcpuType {}

const fn named(name: &'static str, processor: CpuType) -> VcpuType {
    VcpuType { name, processor }
}

/// What QEMU 10.0 lists, and the names that later ones add. A version of a processor changes its features, not its family, model and
/// stepping (QEMU, `target/i386/cpu.c`): the crate lacks the last versions, so they are given as the one before.
const ALL: [VcpuType; 23] = [
    named("EPYC", CpuType::Epyc),
    named("EPYC-IBPB", CpuType::EpycIBPB),
    named("EPYC-v1", CpuType::EpycV1),
    named("EPYC-v2", CpuType::EpycV2),
    named("EPYC-v3", CpuType::EpycV3),
    named("EPYC-v4", CpuType::EpycV4),
    named("EPYC-v5", CpuType::EpycV4),
    named("EPYC-Rome", CpuType::EpycRome),
    named("EPYC-Rome-v1", CpuType::EpycRomeV1),
    named("EPYC-Rome-v2", CpuType::EpycRomeV2),
    named("EPYC-Rome-v3", CpuType::EpycRomeV3),
    named("EPYC-Rome-v4", CpuType::EpycRomeV3),
    named("EPYC-Rome-v5", CpuType::EpycRomeV3),
    named("EPYC-Milan", CpuType::EpycMilan),
    named("EPYC-Milan-v1", CpuType::EpycMilanV1),
    named("EPYC-Milan-v2", CpuType::EpycMilanV2),
    named("EPYC-Milan-v3", CpuType::EpycMilanV2),
    named("EPYC-Genoa", CpuType::EpycGenoa),
    named("EPYC-Genoa-v1", CpuType::EpycGenoaV1),
    named("EPYC-Genoa-v2", CpuType::EpycGenoaV1),
    named("EPYC-Turin", CpuType::EpycTurin),
    named("EPYC-Turin-v1", CpuType::EpycTurinV1),
    named("EPYC-Turin-v2", CpuType::EpycTurinV2),
];

impl VcpuType {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// One of each CPUID signature: those between which a measurement can tell.
    pub fn distinct() -> impl Iterator<Item = Self> {
        ALL.iter()
            .enumerate()
            .filter(|(at, one)| ALL.iter().take(*at).all(|before| before.signature() != one.signature()))
            .map(|(_, one)| *one)
    }

    /// CPUID `Fn0000_0001_EAX`: family, model, stepping.
    #[must_use]
    pub fn signature(self) -> u32 {
        self.processor.sig().cast_unsigned()
    }

    pub(super) fn processor(self) -> CpuType {
        self.processor
    }
}

impl FromStr for VcpuType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        ALL.into_iter().find(|one| one.name == text).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|one| one.name).collect();
            Error::Misuse(format!(
                "{text:?} is no vCPU type whose measurement is known; expected one of {}",
                names.join(", ")
            ))
        })
    }
}

impl fmt::Display for VcpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
