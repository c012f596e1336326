//! The search for TDX registers: each by itself.

use cocoon_attestation::Measurement;

use super::command_line::{Edit, words};
use super::evidence::Registers;
use super::material::{Candidate, Material};
use super::{Difference, Explanation, Input};
use crate::predict::firmware::Firmware;
use crate::predict::tdx::InitrdWord;
use crate::predict::{Error, tdx};

/// Searches for what makes each register.
///
/// # Errors
/// [`Error`] for firmware that makes no sense.
pub fn explain(got: &Registers, material: &Material, words: &[String]) -> Result<Explanation, Error> {
    let mut search = Search { material, words, tried: 0, differences: Vec::new(), unexplained: Vec::new() };
    if let Some(got) = got.mr_td {
        let found = search.mr_td(got)?;
        search
            .note("mrtd: the firmware is none of those that were tried, or was added in another way", found);
    }
    if let Some(got) = got.rtmr1 {
        let found = search.rtmr1(got);
        search.note(
            "rtmr1: the kernel is none of those that were tried, or firmware noted other events",
            found,
        );
    }
    if let Some(got) = got.rtmr2 {
        let found = search.rtmr2(got)?;
        search.note("rtmr2: the command line or the initrd is none of those that were tried", found);
    }
    Ok(Explanation {
        platform: "tdx",
        explained: search.unexplained.is_empty(),
        differences: search.differences,
        found: Vec::new(),
        unexplained: search.unexplained,
        tried: search.tried,
    })
}

struct Search<'a> {
    material: &'a Material,
    words: &'a [String],
    tried: u64,
    differences: Vec<Difference>,
    unexplained: Vec<String>,
}

fn file(input: Input, list: &[Candidate], at: usize) -> Option<Difference> {
    let (got, want) = (list.get(at)?, list.first()?);
    (at > 0).then(|| Difference { input, got: got.describe(), want: want.describe() })
}

impl Search<'_> {
    fn note(&mut self, unexplained: &str, found: Option<Vec<Difference>>) {
        match found {
            Some(differences) => self.differences.extend(differences),
            None => self.unexplained.push(unexplained.to_owned()),
        }
    }

    fn is(&mut self, got: Measurement, tried: Measurement) -> bool {
        self.tried = self.tried.saturating_add(1);
        got == tried
    }

    fn mr_td(&mut self, got: Measurement) -> Result<Option<Vec<Difference>>, Error> {
        for order in [tdx::Order::SinglePass, tdx::Order::TwoPass] {
            for (at, candidate) in self.material.firmware.iter().enumerate() {
                if !self.is(got, tdx::mr_td(&Firmware::parse(&candidate.bytes)?, order)?) {
                    continue;
                }
                let legacy = (order == tdx::Order::TwoPass).then(|| Difference {
                    input: Input::PageOrder,
                    got: "all pages of a section added, then measured: QEMU before 9".to_owned(),
                    want: "each page measured when it is added: QEMU 9 and later".to_owned(),
                });
                let firmware = file(Input::Firmware, &self.material.firmware, at);
                return Ok(Some(firmware.into_iter().chain(legacy).collect()));
            }
        }
        Ok(None)
    }

    fn rtmr1(&mut self, got: Measurement) -> Option<Vec<Difference>> {
        let kernels = &self.material.kernels;
        let at = kernels
            .iter()
            .position(|kernel| kernel.sha384.is_some_and(|digest| self.is(got, tdx::rtmr1_of(&digest))))?;
        Some(file(Input::Kernel, kernels, at).into_iter().collect())
    }

    /// With the image's firmware, then with one that puts the word for the initrd elsewhere.
    fn rtmr2(&mut self, got: Measurement) -> Result<Option<Vec<Difference>>, Error> {
        let Some(firmware) = self.material.firmware.first() else { return Ok(None) };
        // Of firmware that does not say, one is as good as the other.
        let [own, other] = match InitrdWord::of(&Firmware::parse(&firmware.bytes)?) {
            Ok(InitrdWord::First) | Err(_) => [InitrdWord::First, InitrdWord::Last],
            Ok(InitrdWord::Last) => [InitrdWord::Last, InitrdWord::First],
        };
        for word in [own, other] {
            if let Some(found) = self.initrd(got, word) {
                let elsewhere = (word != own).then(|| Difference {
                    input: Input::Firmware,
                    got: format!("one that puts {}", describe(word)),
                    want: format!("one that puts {}", describe(own)),
                });
                return Ok(Some(elsewhere.into_iter().chain(found).collect()));
            }
        }
        Ok(None)
    }

    fn initrd(&mut self, got: Measurement, word: InitrdWord) -> Option<Vec<Difference>> {
        let material = self.material;
        for initrd in 0..material.initrds.len() {
            let digest = material.initrds.get(initrd)?.sha384?;
            if let Some(line) = self.line(got, word, &digest) {
                let initrd = file(Input::Initrd, &material.initrds, initrd);
                return Some(initrd.into_iter().chain(line.difference(material)).collect());
            }
        }
        None
    }

    fn line(&mut self, got: Measurement, word: InitrdWord, initrd: &[u8; 48]) -> Option<Line> {
        let material = self.material;
        let rtmr2 = |line: &[u8]| tdx::rtmr2_of(word, line, initrd);
        for (at, candidate) in material.command_lines.iter().enumerate() {
            if self.is(got, rtmr2(&candidate.bytes)) {
                return Some(Line((at > 0).then(|| (candidate.bytes.clone(), candidate.name.clone()))));
            }
        }
        for candidate in &material.command_lines {
            for variation in words(&candidate.bytes, self.words) {
                if self.is(got, rtmr2(&variation.line)) {
                    return Some(Line(Some((variation.line, variation.how))));
                }
            }
        }
        let base = &material.command_lines.first()?.bytes;
        let edit = Edit::all(base).find(|edit| self.is(got, rtmr2(&edit.apply(base))))?;
        Some(Line(Some((edit.apply(base), edit.to_string()))))
    }
}

fn describe(word: InitrdWord) -> &'static str {
    match word {
        InitrdWord::First => "initrd=initrd before the command line",
        InitrdWord::Last => "initrd=initrd behind the command line",
    }
}

/// The image's command line, or another one and how it came to be.
struct Line(Option<(Vec<u8>, String)>);

impl Line {
    fn difference(self, material: &Material) -> Option<Difference> {
        let (text, how) = self.0?;
        let want = material.command_lines.first()?;
        let show = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
        Some(Difference {
            input: Input::Cmdline,
            got: format!("{} ({how})", show(&text)),
            want: show(&want.bytes),
        })
    }
}
