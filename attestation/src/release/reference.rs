//! Reference values (RFC 9334 section 8.3): what genuine hardware measures when it launches the released image.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::is_word;
use crate::cbor::{self, Field, Value};
use crate::{Error, Measurement};

/// Shapes of SNP machines: vCPU counts times processor types.
const MAX_SNP: usize = 256;
/// Kinds of TDX machines.
const MAX_TDX: usize = 64;
/// Shapes of one kind of TDX machine.
const MAX_SHAPES: usize = 64;
/// Longest name of a processor type.
const MAX_TYPE: usize = 64;

const WHAT: &str = "release manifest";

/// One shape of an SNP guest: `[vcpus uint, type tstr, guest policy uint or null, measurement bstr48]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpReference {
    /// Number of virtual processors; each has a page in the launch digest.
    pub vcpus: u64,
    /// Their type, as QEMU names it.
    pub vcpu_type: String,
    /// POLICY of the guest (AMD 56860, table 9), where the release demands one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// The launch digest: MEASUREMENT of the report.
    pub measurement: Measurement,
}

/// One kind of TD: `[MRTD bstr48, RTMR1 bstr48, RTMR2 bstr48, [* shape]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// MRTD: the firmware.
    pub mr_td: Measurement,
    /// RTMR1: the kernel.
    pub rtmr1: Measurement,
    /// RTMR2: command line and initramfs.
    pub rtmr2: Measurement,
    /// RTMR0 by the shape of the machine. A policy that demands RTMR0 of the release accepts no other shape.
    #[serde(default)]
    pub shapes: BTreeSet<TdxShape>,
}

/// RTMR0 of one shape: `[vcpus uint, memory uint, RTMR0 bstr48]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxShape {
    /// Number of virtual processors.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// RTMR0: firmware configuration, ACPI tables among it.
    pub rtmr0: Measurement,
}

pub(super) fn snp_value(all: &BTreeSet<SnpReference>) -> Value {
    let one = |reference: &SnpReference| {
        Value::Array(vec![
            cbor::uint(reference.vcpus),
            cbor::text(&reference.vcpu_type),
            reference.policy.map_or(Value::Null, cbor::uint),
            cbor::bytes(&reference.measurement.0),
        ])
    };
    Value::Array(all.iter().map(one).collect())
}

pub(super) fn snp(field: Field) -> Result<BTreeSet<SnpReference>, Error> {
    let one = |item: Field| {
        let [vcpus, vcpu_type, policy, measurement] = exactly(item, "an SNP reference value of 4 parts")?;
        Ok(SnpReference {
            vcpus: at_least_one(vcpus)?,
            vcpu_type: word(vcpu_type, MAX_TYPE)?,
            policy: if policy.is_null() { None } else { Some(policy.uint()?) },
            measurement: Measurement(measurement.array()?),
        })
    };
    field.not_empty()?.items(MAX_SNP)?.into_iter().map(one).collect()
}

pub(super) fn tdx_value(all: &BTreeSet<TdxReference>) -> Value {
    let shape = |shape: &TdxShape| {
        let numbers = [cbor::uint(shape.vcpus), cbor::uint(shape.memory_mib), cbor::bytes(&shape.rtmr0.0)];
        Value::Array(numbers.into())
    };
    let one = |reference: &TdxReference| {
        let mut parts: Vec<_> =
            [reference.mr_td, reference.rtmr1, reference.rtmr2].map(|m| cbor::bytes(&m.0)).into();
        parts.push(Value::Array(reference.shapes.iter().map(shape).collect()));
        Value::Array(parts)
    };
    Value::Array(all.iter().map(one).collect())
}

pub(super) fn tdx(field: Field) -> Result<BTreeSet<TdxReference>, Error> {
    let one = |item: Field| {
        let [mr_td, rtmr1, rtmr2, shapes] = exactly(item, "a TDX reference value of 4 parts")?;
        Ok(TdxReference {
            mr_td: Measurement(mr_td.array()?),
            rtmr1: Measurement(rtmr1.array()?),
            rtmr2: Measurement(rtmr2.array()?),
            shapes: shapes.items(MAX_SHAPES)?.into_iter().map(shape).collect::<Result<_, _>>()?,
        })
    };
    field.not_empty()?.items(MAX_TDX)?.into_iter().map(one).collect()
}

fn shape(item: Field) -> Result<TdxShape, Error> {
    let [vcpus, memory, rtmr0] = exactly(item, "a shape of 3 parts")?;
    Ok(TdxShape {
        vcpus: at_least_one(vcpus)?,
        memory_mib: at_least_one(memory)?,
        rtmr0: Measurement(rtmr0.array()?),
    })
}

/// Exactly `N` items; `want` says of what.
pub(super) fn exactly<const N: usize>(field: Field, want: &str) -> Result<[Field; N], Error> {
    <[Field; N]>::try_from(field.items(N)?)
        .map_err(|_too_few| Error::malformed(WHAT, format!("expected {want}")))
}

pub(super) fn word(field: Field, max_len: usize) -> Result<String, Error> {
    let text = field.text(max_len)?;
    if is_word(&text, max_len) {
        return Ok(text);
    }
    Err(Error::malformed(WHAT, format!("a text that is not 1 to {max_len} visible ASCII characters")))
}

fn at_least_one(field: Field) -> Result<u64, Error> {
    match field.uint()? {
        0 => Err(Error::malformed(WHAT, "a machine without processors or memory")),
        n => Ok(n),
    }
}
