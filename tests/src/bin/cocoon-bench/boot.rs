//! How long a VM takes to its first attested answer, against what firmware and kernel take until our program starts in it.

use std::path::Path;
use std::time::Instant;

use cocoon_tests::programs::cocoon;
use cocoon_tests::vm::Lab;

use crate::pairs::alternate;
use crate::report::{Better, Row};

/// Odd, so that the median is one of the pairs. Each takes half a minute under emulation.
const PAIRS: usize = 3;

/// Measures; nothing where there is no image or no QEMU.
///
/// # Errors
/// When a VM does not come up.
pub fn measure() -> anyhow::Result<Vec<Row>> {
    let Some(lab) = Lab::open() else { return Ok(Vec::new()) };
    let policy = lab.policy();
    let [pairs] = alternate(PAIRS, || until_booting(&lab), || until_attested(&lab, &policy))?;
    Ok(vec![Row {
        what: "start of the host to the first attested answer of its VM".to_owned(),
        baseline: "to the first line of the program in it".to_owned(),
        better: Better::Lower,
        unit: "s",
        pairs,
        note: String::new(),
    }])
}

fn until_booting(lab: &Lab) -> anyhow::Result<[f64; 1]> {
    let start = Instant::now();
    lab.boot(&lab.image, &[]).event("booting");
    Ok([start.elapsed().as_secs_f64()])
}

fn until_attested(lab: &Lab, policy: &Path) -> anyhow::Result<[f64; 1]> {
    let start = Instant::now();
    let mut vm = lab.boot(&lab.image, &[]);
    let address = vm.ready();
    let policy = policy.to_string_lossy();
    let answer =
        cocoon(&["chat", &address, "Hi", "--policy", &policy, "--temperature", "0", "--max-tokens", "1"]);
    anyhow::ensure!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    Ok([start.elapsed().as_secs_f64()])
}
