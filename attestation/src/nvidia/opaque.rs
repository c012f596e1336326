//! Opaque data of a report: what NVIDIA says beyond SPDM.
//!
//! Source: NVIDIA/nvtrust, `opaque_data_parser.py` (field numbers) and captured reports (contents).

use std::collections::BTreeMap;

use crate::Error;
use crate::reader::Reader;

/// Todays reports have 17.
const MAX_FIELDS: usize = 64;

const WHAT: &str = "opaque data of a GPU report";

const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const NVDEC0_STATUS: u16 = 11;
const CHIP_SKU: u16 = 15;
const PROJECT: u16 = 17;
const PROJECT_SKU: u16 = 18;
const FWID: u16 = 20;
const PROTECTED_PCIE_STATUS: u16 = 21;
const DATA_VERSION: u16 = 34;
const FEATURE_FLAG: u16 = 36;

/// One-byte states.
const OFF: u8 = 0x55;
const ON: u8 = 0xaa;

/// How the GPU shares its work with others, by the feature flag.
const FEATURES: [(u16, &str); 3] = [(0, "single-gpu"), (1, "multi-gpu"), (2, "protected-pcie")];

/// What is not in the report.
pub(super) const UNSTATED: &str = "unstated";

/// The fields by number. Numbers without a name here are kept, and signed like the others, but nobody looks at them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(BTreeMap<u16, Vec<u8>>);

impl Opaque {
    /// Type (2 bytes), length (2 bytes), value, and so on to the end.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(WHAT, bytes);
        let mut fields = BTreeMap::new();
        while !r.is_empty() {
            if fields.len() == MAX_FIELDS {
                return Err(Error::malformed(WHAT, format!("more than {MAX_FIELDS} fields")));
            }
            let (number, len) = (r.u16_le()?, r.u16_le()?);
            if fields.insert(number, r.take(usize::from(len))?.to_vec()).is_some() {
                return Err(Error::malformed(WHAT, format!("field {number} is there twice")));
            }
        }
        // Old drivers do not say it. What another version means by the same numbers, nobody knows.
        match fields.get(&DATA_VERSION).map(Vec::as_slice) {
            None | Some([0 | 1, 0]) => Ok(Self(fields)),
            Some(_) => Err(Error::malformed(WHAT, "a version that is not known, expected 0 or 1")),
        }
    }

    /// The content of a field.
    #[must_use]
    pub fn field(&self, number: u16) -> Option<&[u8]> {
        self.0.get(&number).map(Vec::as_slice)
    }

    /// The numbers of all fields.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.0.keys().copied()
    }

    /// Version of the driver, such as `550.90.07`.
    #[must_use]
    pub fn driver_version(&self) -> Option<&str> {
        self.text(DRIVER_VERSION)
    }

    /// Version of the VBIOS, such as `96.00.9f.00.01`: two little-endian halves of 4 bytes.
    #[must_use]
    pub fn vbios_version(&self) -> Option<String> {
        let [a, b, c, d, low, 0, 0, 0] = <[u8; 8]>::try_from(self.field(VBIOS_VERSION)?).ok()? else {
            return None;
        };
        Some(format!("{d:02x}.{c:02x}.{b:02x}.{a:02x}.{low:02x}"))
    }

    /// Project, its SKU and the chip's SKU: with the version of the VBIOS the name of its RIM.
    #[must_use]
    pub fn board(&self) -> Option<[&str; 3]> {
        Some([self.text(PROJECT)?, self.text(PROJECT_SKU)?, self.text(CHIP_SKU)?])
    }

    /// Digest of the firmware that holds the attestation key (48 bytes); not in the reports of old drivers.
    #[must_use]
    pub fn fwid(&self) -> Option<&[u8]> {
        self.field(FWID)
    }

    /// Whether NVDEC0 is off: then measurement 35 means nothing.
    #[must_use]
    pub fn is_nvdec0_off(&self) -> bool {
        self.field(NVDEC0_STATUS) == Some(&[OFF])
    }

    /// Protected PCIe: `on`, `off`, `unstated`, or `unknown`.
    #[must_use]
    pub fn protected_pcie(&self) -> &'static str {
        match self.field(PROTECTED_PCIE_STATUS) {
            None => UNSTATED,
            Some([ON]) => "on",
            Some([OFF]) => "off",
            Some(_) => "unknown",
        }
    }

    /// `single-gpu`, `multi-gpu`, `protected-pcie`, `unstated`, or `unknown`.
    #[must_use]
    pub fn feature(&self) -> &'static str {
        let Some(field) = self.field(FEATURE_FLAG) else { return UNSTATED };
        let flag = <[u8; 2]>::try_from(field).ok().map(u16::from_le_bytes);
        FEATURES.iter().find(|(number, _)| flag == Some(*number)).map_or("unknown", |(_, name)| name)
    }

    /// Letters, digits and dots, padded with zero bytes at the end.
    fn text(&self, number: u16) -> Option<&str> {
        let field = self.field(number)?;
        let text = std::str::from_utf8(field).ok()?.trim_end_matches('\0');
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
        plain.then_some(text)
    }
}
