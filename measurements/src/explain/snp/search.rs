//! Which inputs make a measurement.

use cocoon_attestation::{Digest, Measurement};

use super::{Expected, Found, Line};
use crate::explain::command_line::{Edit, words};
use crate::explain::material::{Candidate, Material};
use crate::predict::Error;
use crate::predict::firmware::Firmware;
use crate::predict::snp::launch::{Hashes, Launch, Order, Start, Vcpus};
use crate::predict::snp::{GUEST_FEATURES, MAX_VCPUS, Shape, VcpuType};

/// `SEV_FEATURES` that hosts are seen to use: none more, debug swap, secure TSC, both, restricted injection.
const FEATURES: [u64; 5] = [GUEST_FEATURES, 0x21, 0x201, 0x221, 0x9];
/// Processors that are tried with each of the many lines that differ in a byte, if the number is not given.
const EDIT_VCPUS: u32 = 64;

/// A firmware, measured up to the page of hashes, and the processors that it may be started with.
struct Prepared {
    firmware: usize,
    order: Order,
    start: Start,
    vcpus: Vec<(VcpuType, u64, Vcpus)>,
}

/// A search for one measurement.
pub(super) struct Search<'a> {
    got: &'a Measurement,
    material: &'a Material,
    expected: &'a Expected,
    prepared: Vec<Prepared>,
    /// How many measurements were computed.
    pub(super) tried: u64,
}

/// Which processors are tried.
#[derive(Clone, Copy, PartialEq)]
enum Shapes {
    /// All types and features, up to the most processors.
    All,
    /// The expected ones; what is not expected up to [`EDIT_VCPUS`] and with the usual features.
    Likely,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        got: &'a Measurement,
        material: &'a Material,
        expected: &'a Expected,
    ) -> Result<Self, Error> {
        let mut prepared = Vec::new();
        for order in [Order::Qemu, Order::Ec2] {
            for (at, candidate) in material.firmware.iter().enumerate() {
                prepared.push(Prepared::new(at, candidate, order, expected)?);
            }
        }
        Ok(Self { got, material, expected, prepared, tried: 0 })
    }

    pub(super) fn run(&mut self) -> Option<Found> {
        // Moved out, so that counting does not borrow what is read.
        let prepared = std::mem::take(&mut self.prepared);
        self.files(&prepared)
            .or_else(|| self.words(&prepared, Shapes::Likely))
            .or_else(|| self.edits(&prepared))
            .or_else(|| self.words(&prepared, Shapes::All))
    }

    /// Files as they are, in all combinations.
    fn files(&mut self, prepared: &[Prepared]) -> Option<Found> {
        let material = self.material;
        let mut combinations = Vec::new();
        for prepared in prepared {
            for kernel in 0..material.kernels.len() {
                for initrd in 0..material.initrds.len() {
                    for line in 0..material.command_lines.len() {
                        let places = [
                            prepared.firmware,
                            kernel,
                            initrd,
                            line,
                            usize::from(prepared.order == Order::Ec2),
                        ];
                        let differ = places.iter().filter(|at| **at > 0).count();
                        combinations.push((differ, prepared, kernel, initrd, line));
                    }
                }
            }
        }
        combinations.sort_by_key(|(differ, ..)| *differ);
        for (_, prepared, kernel, initrd, line) in combinations {
            let candidate = material.command_lines.get(line)?;
            let line =
                Line { text: candidate.bytes.clone(), how: candidate.name.clone(), expected: line == 0 };
            let found = self.one(prepared, (kernel, initrd), line, Shapes::All);
            if found.is_some() {
                return found;
            }
        }
        prepared.iter().find_map(|prepared| {
            let launch = prepared.start.with(None).ok()?;
            let shape = self.shape(prepared, launch, Shapes::All)?;
            Some(prepared.found((0, 0), None, shape))
        })
    }

    /// The image's command line, and those of others, with a word more or less.
    fn words(&mut self, prepared: &[Prepared], shapes: Shapes) -> Option<Found> {
        for base in &self.material.command_lines {
            for variation in words(&base.bytes, &self.expected.words) {
                let line = Line { text: variation.line, how: variation.how, expected: false };
                for (prepared, files) in self.pairs(prepared) {
                    let found = self.one(prepared, files, line.clone(), shapes);
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// The image's command line with a byte changed.
    fn edits(&mut self, prepared: &[Prepared]) -> Option<Found> {
        let base = self.material.command_lines.first()?;
        for (prepared, files) in self.pairs(prepared) {
            let mut hashes = self.hashes(files)?;
            for edit in Edit::all(&base.bytes) {
                hashes.command_line = Hashes::of_command_line(&edit.apply(&base.bytes));
                let Ok(launch) = prepared.start.with(Some(&hashes)) else { break };
                if let Some(shape) = self.shape(prepared, launch, Shapes::Likely) {
                    let line = Line { text: edit.apply(&base.bytes), how: edit.to_string(), expected: false };
                    return Some(prepared.found(files, Some(line), shape));
                }
            }
        }
        None
    }

    /// Firmware as QEMU adds it, with kernel and initrd of one image: the first of both, the second of both, and so on.
    fn pairs<'p>(&self, prepared: &'p [Prepared]) -> Vec<(&'p Prepared, (usize, usize))> {
        let (kernels, initrds) = (self.material.kernels.len(), self.material.initrds.len());
        let last = |at: usize, len: usize| at.min(len.saturating_sub(1));
        let files: Vec<_> =
            (0..kernels.max(initrds)).map(|at| (last(at, kernels), last(at, initrds))).collect();
        let qemu = prepared.iter().filter(|prepared| prepared.order == Order::Qemu);
        qemu.flat_map(|prepared| files.iter().map(move |files| (prepared, *files))).collect()
    }

    fn hashes(&self, (kernel, initrd): (usize, usize)) -> Option<Hashes> {
        let (kernel, initrd) = (self.material.kernels.get(kernel)?, self.material.initrds.get(initrd)?);
        Some(Hashes { kernel: kernel.sha256, initrd: initrd.sha256, command_line: Digest([0; 32]) })
    }

    fn one(
        &mut self,
        prepared: &Prepared,
        files: (usize, usize),
        line: Line,
        shapes: Shapes,
    ) -> Option<Found> {
        let hashes = Hashes { command_line: Hashes::of_command_line(&line.text), ..self.hashes(files)? };
        let launch = prepared.start.with(Some(&hashes)).ok()?;
        let shape = self.shape(prepared, launch, shapes)?;
        Some(prepared.found(files, Some(line), shape))
    }

    /// The shape with which a launch becomes what is searched for.
    fn shape(&mut self, prepared: &Prepared, launch: Launch, shapes: Shapes) -> Option<Shape> {
        let all = shapes == Shapes::All;
        let most = if all { MAX_VCPUS } else { self.expected.vcpus.unwrap_or(EDIT_VCPUS) };
        let usual = self.expected.guest_features.unwrap_or(GUEST_FEATURES);
        for (vcpu_type, guest_features, vcpus) in &prepared.vcpus {
            let expected =
                self.expected.vcpu_type.is_none_or(|known| known.signature() == vcpu_type.signature());
            if !all && (!expected || *guest_features != usual) {
                continue;
            }
            for (count, launch) in vcpus.each(launch).take_while(|(count, _)| *count <= most) {
                self.tried = self.tried.saturating_add(1);
                if launch.measurement() == *self.got {
                    return Some(Shape {
                        vcpus: count,
                        vcpu_type: *vcpu_type,
                        guest_features: *guest_features,
                    });
                }
            }
        }
        None
    }
}

impl Prepared {
    fn new(firmware: usize, candidate: &Candidate, order: Order, expected: &Expected) -> Result<Self, Error> {
        let parsed = Firmware::parse(&candidate.bytes)?;
        let mut features = FEATURES.to_vec();
        features.extend(expected.guest_features.filter(|given| !FEATURES.contains(given)));
        let mut vcpus = Vec::new();
        for guest_features in features {
            for vcpu_type in VcpuType::distinct() {
                let named = expected.vcpu_type.filter(|known| known.signature() == vcpu_type.signature());
                let state = Vcpus::new(&parsed, order, vcpu_type, guest_features)?;
                vcpus.push((named.unwrap_or(vcpu_type), guest_features, state));
            }
        }
        // Where something is not measured, as the type on EC2, the expected one is taken.
        vcpus.sort_by_key(|(vcpu_type, features, _)| {
            let other_type = expected.vcpu_type.is_some_and(|want| want != *vcpu_type);
            (other_type, expected.guest_features.is_some_and(|want| want != *features))
        });
        Ok(Self { firmware, order, start: Start::new(&parsed, order)?, vcpus })
    }

    fn found(&self, (kernel, initrd): (usize, usize), line: Option<Line>, shape: Shape) -> Found {
        Found { firmware: self.firmware, kernel, initrd, line, order: self.order, shape }
    }
}
