//! The measurement in question: as text, or in evidence. Nothing is authenticated here: that is the client's work.

use cocoon_attestation::wire::{AttestResponse, EvidenceSet, SNP_REPORT_MEDIA_TYPE, TDX_QUOTE_MEDIA_TYPE};
use cocoon_attestation::{Measurement, snp, tdx};

use crate::predict::Error;

/// What a processor said that it measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// MEASUREMENT of an SNP report.
    Snp(Measurement),
    /// Registers of a TDX quote.
    Tdx(Registers),
}

/// Those registers of a TDX quote that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// MRTD: the firmware.
    pub mr_td: Option<Measurement>,
    /// RTMR1: the kernel.
    pub rtmr1: Option<Measurement>,
    /// RTMR2: command line and initrd.
    pub rtmr2: Option<Measurement>,
}

impl Registers {
    /// Those of `got` that `want` has another value for, or none.
    #[must_use]
    pub fn differing(got: &Self, want: &Self) -> Self {
        let other = |got: Option<Measurement>, want| got.filter(|got| Some(*got) != want);
        Self {
            mr_td: other(got.mr_td, want.mr_td),
            rtmr1: other(got.rtmr1, want.rtmr1),
            rtmr2: other(got.rtmr2, want.rtmr2),
        }
    }
}

/// A response has at most 256 KiB, a quote or a report far less.
pub const MAX_EVIDENCE: usize = 256 << 10;

impl Measured {
    /// 96 hexadecimal digits are SNP's; `mrtd=HEX,rtmr1=HEX,rtmr2=HEX`, or some of them, are TDX's. `None` for other text.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a register that is not known or has no 96 digits.
    pub fn from_text(text: &str) -> Result<Option<Self>, Error> {
        if text.len() == 96 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(text.parse().ok().map(Self::Snp));
        }
        if !text.contains('=') || text.contains('/') {
            return Ok(None);
        }
        let mut registers = Registers::default();
        for part in text.split(',') {
            let (name, digits) = part.split_once('=').unwrap_or((part, ""));
            let value = digits.parse().map_err(|e| Error::Misuse(format!("{name}: {e}")))?;
            let register = match name {
                "mrtd" | "mr_td" => &mut registers.mr_td,
                "rtmr1" => &mut registers.rtmr1,
                "rtmr2" => &mut registers.rtmr2,
                _ => {
                    return Err(Error::Misuse(format!(
                        "{name:?} is no register; expected mrtd, rtmr1 or rtmr2"
                    )));
                }
            };
            if register.replace(value).is_some() {
                return Err(Error::Misuse(format!("{name} is there twice")));
            }
        }
        Ok(Some(Self::Tdx(registers)))
    }

    /// A report of 1184 bytes, a quote, or what `cocoon verify --save` keeps.
    ///
    /// # Errors
    /// `Malformed` for anything else.
    pub fn from_evidence(bytes: &[u8]) -> Result<Self, cocoon_attestation::Error> {
        if bytes.len() == snp::REPORT_LEN {
            return Ok(Self::Snp(snp::Report::parse(bytes)?.measurement));
        }
        let Ok(response) = AttestResponse::decode(bytes) else {
            return tdx::Quote::parse(bytes).map(|quote| Self::of(&quote));
        };
        let set = EvidenceSet::decode(&response.evidence)?;
        let malformed = |why: &str| cocoon_attestation::Error::Malformed {
            what: "evidence collection",
            why: why.to_owned(),
        };
        let cpu = set.0.get("cpu").ok_or_else(|| malformed("no evidence of a CPU"))?;
        match cpu.media_type.as_str() {
            SNP_REPORT_MEDIA_TYPE => Ok(Self::Snp(snp::Report::parse(&cpu.bytes)?.measurement)),
            TDX_QUOTE_MEDIA_TYPE => tdx::Quote::parse(&cpu.bytes).map(|quote| Self::of(&quote)),
            _ => Err(malformed("evidence of neither SEV-SNP nor TDX")),
        }
    }

    fn of(quote: &tdx::Quote) -> Self {
        let [_, rtmr1, rtmr2, _] = quote.body.rtmr;
        Self::Tdx(Registers { mr_td: Some(quote.body.mr_td), rtmr1: Some(rtmr1), rtmr2: Some(rtmr2) })
    }
}
