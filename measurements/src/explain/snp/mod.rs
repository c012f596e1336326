//! The search for an SNP measurement: combinations of inputs, those that differ in the fewest first.

mod search;

use cocoon_attestation::Measurement;

use super::material::Material;
use super::{Difference, Explanation, Input};
use crate::predict::Error;
use crate::predict::snp::launch::Order;
use crate::predict::snp::{Shape, VcpuType};
use search::Search;

/// What is known of the machine. What is not is searched and is no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Number of processors.
    pub vcpus: Option<u32>,
    /// Their type.
    pub vcpu_type: Option<VcpuType>,
    /// `SEV_FEATURES`.
    pub guest_features: Option<u64>,
    /// Words that may be in the command line.
    pub words: Vec<String>,
}

/// Inputs that make a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Places in the lists of the material.
    firmware: usize,
    kernel: usize,
    initrd: usize,
    /// `None`: started with `kernel-hashes=off`, so that nothing of what was booted is measured.
    line: Option<Line>,
    order: Order,
    shape: Shape,
}

/// A command line and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: Vec<u8>,
    how: String,
    expected: bool,
}

/// Searches for what makes `got`.
///
/// # Errors
/// [`Error`] for firmware that makes no sense.
pub fn explain(got: &Measurement, material: &Material, expected: &Expected) -> Result<Explanation, Error> {
    let mut search = Search::new(got, material, expected)?;
    let found = search.run();
    let differences = found.iter().flat_map(|found| found.differences(material, expected)).collect();
    Ok(Explanation {
        platform: "snp",
        explained: found.is_some(),
        differences,
        found: found.as_ref().map(Found::shape).unwrap_or_default(),
        unexplained: if found.is_some() { Vec::new() } else { vec!["measurement".to_owned()] },
        tried: search.tried,
    })
}

/// Searches for what makes `got` and what makes `want`, and compares. Not explained if one of them is not.
///
/// # Errors
/// [`Error`] for firmware that makes no sense.
pub fn explain_both(
    got: &Measurement,
    want: &Measurement,
    material: &Material,
    expected: &Expected,
) -> Result<Explanation, Error> {
    let wanted = Search::new(want, material, expected)?.run();
    let Some(wanted) = wanted else {
        let mut explanation = explain(got, material, expected)?;
        explanation.explained = false;
        explanation.unexplained.push("wanted measurement".to_owned());
        return Ok(explanation);
    };
    let shape = Expected {
        vcpus: Some(wanted.shape.vcpus),
        vcpu_type: Some(wanted.shape.vcpu_type),
        guest_features: Some(wanted.shape.guest_features),
        words: expected.words.clone(),
    };
    let mut explanation = explain(got, material, &shape)?;
    // Both may differ from the image in the same way: then that is no difference between them.
    let of_want = wanted.differences(material, &shape);
    let of_got = std::mem::take(&mut explanation.differences);
    explanation.differences = compare(&of_got, &of_want);
    Ok(explanation)
}

/// Differences of `got` that are not those of `want`, and the other way round.
fn compare(got: &[Difference], want: &[Difference]) -> Vec<Difference> {
    let find = |list: &[Difference], input| list.iter().find(|one| one.input == input).cloned();
    let mut inputs: Vec<_> = got.iter().chain(want).map(|one| one.input).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let merged = inputs.into_iter().filter_map(|input| match (find(got, input), find(want, input)) {
        (Some(got), Some(want)) if got == want => None,
        (Some(got), Some(want)) => Some(Difference { input, got: got.got, want: want.got }),
        (Some(got), None) => Some(got),
        (None, Some(want)) => Some(Difference { input, got: want.want, want: want.got }),
        (None, None) => None,
    });
    merged.collect()
}

impl Found {
    fn shape(&self) -> Vec<(String, String)> {
        vec![
            ("vcpus".to_owned(), self.shape.vcpus.to_string()),
            ("vcpu_type".to_owned(), self.shape.vcpu_type.to_string()),
            ("guest_features".to_owned(), format!("{:#x}", self.shape.guest_features)),
        ]
    }

    fn differences(&self, material: &Material, expected: &Expected) -> Vec<Difference> {
        let mut out = Vec::new();
        let mut add = |input, got: String, want: String| out.push(Difference { input, got, want });
        for (input, list, at) in [
            (Input::Firmware, &material.firmware, self.firmware),
            (Input::Kernel, &material.kernels, self.kernel),
            (Input::Initrd, &material.initrds, self.initrd),
        ] {
            if let (Some(want), Some(got), true) = (list.first(), list.get(at), at > 0) {
                add(input, got.describe(), want.describe());
            }
        }
        let want =
            material.command_lines.first().map(|line| String::from_utf8_lossy(&line.bytes).into_owned());
        match &self.line {
            None => add(
                Input::KernelHashes,
                "off: nothing of kernel, initrd and command line is measured".to_owned(),
                "on".to_owned(),
            ),
            Some(line) if !line.expected => {
                let text = String::from_utf8_lossy(&line.text).into_owned();
                add(
                    Input::Cmdline,
                    format!("{text:?} ({})", line.how),
                    format!("{:?}", want.unwrap_or_default()),
                );
            }
            Some(_) => {}
        }
        if let Some(want) = expected.vcpus.filter(|want| *want != self.shape.vcpus) {
            add(Input::Vcpus, self.shape.vcpus.to_string(), want.to_string());
        }
        let other = |want: &VcpuType| want.signature() != self.shape.vcpu_type.signature();
        if let Some(want) = expected.vcpu_type.filter(other) {
            add(Input::VcpuType, self.shape.vcpu_type.to_string(), want.to_string());
        }
        if let Some(want) = expected.guest_features.filter(|want| *want != self.shape.guest_features) {
            add(Input::GuestFeatures, format!("{:#x}", self.shape.guest_features), format!("{want:#x}"));
        }
        if self.order == Order::Ec2 {
            add(
                Input::PageOrder,
                "as Amazon EC2 starts guests".to_owned(),
                "as QEMU starts guests".to_owned(),
            );
        }
        out
    }
}
