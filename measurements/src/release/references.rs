//! Reference values from files, as JSON: `{ "snp": [{ "vcpus", "vcpu_type", "measurement", "policy"? }],
//! "tdx": [{ "mr_td", "rtmr1", "rtmr2", "shapes": [{ "vcpus", "memory_mib", "rtmr0" }] }] }`. Digests are hex.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cocoon_attestation::release::{SnpReference, TdxReference};
use serde::Deserialize;

use super::{ReleaseError, read};

/// 256 values of 200 characters are less.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    #[serde(default)]
    snp: Vec<SnpReference>,
    #[serde(default)]
    tdx: Vec<TdxReference>,
}

/// All values of all files. Shapes of the same TDX values are put together.
///
/// # Errors
/// When a file cannot be read or is not of this form, or there is no value in any.
pub fn read_all(files: &[PathBuf]) -> Result<(BTreeSet<SnpReference>, BTreeSet<TdxReference>), ReleaseError> {
    let (mut snp, mut tdx) = (BTreeSet::new(), Vec::<TdxReference>::new());
    for path in files {
        let values: Values = serde_json::from_slice(&read(path, MAX_FILE)?)
            .map_err(|error| ReleaseError::wrong(path, format!("no reference values: {error}")))?;
        snp.extend(values.snp);
        for one in values.tdx {
            let same = |known: &&mut TdxReference| {
                (known.mr_td, known.rtmr1, known.rtmr2) == (one.mr_td, one.rtmr1, one.rtmr2)
            };
            match tdx.iter_mut().find(same) {
                Some(known) => known.shapes.extend(one.shapes),
                None => tdx.push(one),
            }
        }
    }
    if snp.is_empty() && tdx.is_empty() {
        let why = "no file has a reference value: nothing that runs would be of this release";
        return Err(ReleaseError::Refused(why.to_owned()));
    }
    Ok((snp, tdx.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_several_files_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let read = |texts: &[String]| {
            let files = texts.iter().enumerate().map(|(n, text)| {
                let path = dir.path().join(n.to_string());
                std::fs::write(&path, text).unwrap();
                path
            });
            read_all(&files.collect::<Vec<_>>())
        };
        let hex = |digit: &str| digit.repeat(96);
        let snp = format!(r#"{{"snp":[{{"vcpus":2,"vcpu_type":"EPYC-v4","measurement":"{}"}}]}}"#, hex("a"));
        let tdx = |vcpus| {
            format!(
                r#"{{"tdx":[{{"mr_td":"{}","rtmr1":"{}","rtmr2":"{}","shapes":[{{"vcpus":{vcpus},"memory_mib":1024,"rtmr0":"{}"}}]}}]}}"#,
                hex("1"),
                hex("2"),
                hex("3"),
                hex("4")
            )
        };
        let (snp_values, tdx_values) = read(&[snp.clone(), tdx(1), tdx(2), tdx(2), snp.clone()]).unwrap();
        assert_eq!((snp_values.len(), tdx_values.len()), (1, 1));
        assert_eq!(tdx_values.first().unwrap().shapes.len(), 2);
        let refused = |text: &str| read(&[text.to_owned()]).unwrap_err().to_string();
        assert!(refused("{}").contains("no file has a reference value"));
        for bad in
            [String::new(), snp.replace("vcpus", "cpus"), snp.replace("aa", ""), snp.replace('2', "-2")]
        {
            assert!(refused(&bad).contains("no reference values"), "{bad}");
        }
    }
}
