//! Reference values from files, as JSON: what `cocoon-measure predict snp|tdx --json` prints, or `{ "snp": [{ "vcpus", "vcpu_type", "measurement", "policy"? }],
//! "tdx": [{ "mr_td", "rtmr1", "rtmr2", "shapes": [{ "vcpus", "memory_mib", "rtmr0" }] }] }`. Digests are hex.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cocoon_attestation::Measurement;
use cocoon_attestation::release::{SnpReference, TdxReference, TdxShape};
use serde::Deserialize;
use serde_json::Value;

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

/// What `cocoon-measure predict snp --json` says, of which only this counts.
#[derive(Deserialize)]
struct PredictedSnp {
    vcpus: u64,
    vcpu_type: String,
    measurement: Measurement,
    id_block: Option<IdBlock>,
}

#[derive(Deserialize)]
struct IdBlock {
    policy: String,
}

/// What `cocoon-measure predict tdx --json` says, of which only this counts.
#[derive(Deserialize)]
struct PredictedTdx {
    mr_td: Measurement,
    rtmr0: Option<Measurement>,
    rtmr1: Measurement,
    rtmr2: Measurement,
    vcpus: u64,
    memory_mib: u64,
}

impl Values {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let wrong = |error: serde_json::Error| error.to_string();
        match value.get("platform").and_then(Value::as_str) {
            None => serde_json::from_value(value).map_err(wrong),
            Some("snp") => {
                let one: PredictedSnp = serde_json::from_value(value).map_err(wrong)?;
                let PredictedSnp { vcpus, vcpu_type, measurement, id_block } = one;
                let policy = id_block.map(|block| hexadecimal(&block.policy)).transpose()?;
                let reference = SnpReference { vcpus, vcpu_type, policy, measurement };
                Ok(Self { snp: vec![reference], tdx: Vec::new() })
            }
            Some("tdx") => {
                let one: PredictedTdx = serde_json::from_value(value).map_err(wrong)?;
                let PredictedTdx { mr_td, rtmr0, rtmr1, rtmr2, vcpus, memory_mib } = one;
                let shapes = rtmr0.map(|rtmr0| TdxShape { vcpus, memory_mib, rtmr0 }).into_iter().collect();
                Ok(Self { snp: Vec::new(), tdx: vec![TdxReference { mr_td, rtmr1, rtmr2, shapes }] })
            }
            Some(other) => Err(format!("platform {other:?}, expected snp or tdx")),
        }
    }
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    value.ok_or_else(|| format!("policy {text:?}, expected one as 0x30000"))
}

/// All values of all files. Shapes of the same TDX values are put together.
///
/// # Errors
/// When a file cannot be read or is not of this form, or there is no value in any.
pub fn read_all(files: &[PathBuf]) -> Result<(BTreeSet<SnpReference>, BTreeSet<TdxReference>), ReleaseError> {
    let (mut snp, mut tdx) = (BTreeSet::new(), Vec::<TdxReference>::new());
    for path in files {
        let values = Values::parse(&read(path, MAX_FILE)?)
            .map_err(|why| ReleaseError::wrong(path, format!("no reference values: {why}")))?;
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
        // What `predict` prints counts the same.
        let hex_a = hex("a");
        let predicted = format!(
            r#"{{"platform":"snp","vcpus":2,"vcpu_type":"EPYC-v4","measurement":"{hex_a}","kernel":{{}},"id_block":{{"ld":"x","policy":"0x30000"}}}}"#
        );
        let (of_prediction, none) = read(std::slice::from_ref(&predicted)).unwrap();
        assert!(none.is_empty() && of_prediction.first().unwrap().policy == Some(0x3_0000));
        let tdx_predicted = |rtmr0: &str| {
            let [one, two, three] = ["1", "2", "3"].map(hex);
            format!(
                r#"{{"platform":"tdx","mr_td":"{one}","rtmr0":{rtmr0},"rtmr1":"{two}","rtmr2":"{three}","vcpus":9,"memory_mib":1}}"#
            )
        };
        assert_eq!(read(&[tdx(1), tdx_predicted("null")]).unwrap().1, read(&[tdx(1)]).unwrap().1);
        let both = read(&[tdx(1), tdx_predicted(&format!("\"{hex_a}\""))]).unwrap().1;
        assert_eq!(both.first().unwrap().shapes.len(), 2);
        for bad in [predicted.replace("0x30000", "30000"), predicted.replace("\"snp\"", "\"sgx\"")] {
            let error = read(&[bad]).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
        let refused = |text: &str| read(&[text.to_owned()]).unwrap_err().to_string();
        assert!(refused("{}").contains("no file has a reference value"));
        for bad in
            [String::new(), snp.replace("vcpus", "cpus"), snp.replace("aa", ""), snp.replace('2', "-2")]
        {
            assert!(refused(&bad).contains("no reference values"), "{bad}");
        }
    }
}
