//! How RTMRs come about: replay of extensions, the events that a Cocoon enclave extends RTMR3 with, and the log that firmware
//! and kernel keep (CCEL).

use crate::crypto;
use crate::reader::Reader;
use crate::result::Factor;
use crate::{Digest, Error, Measurement};

use super::quote::Quote;

/// `L("x")` of the protocol: ASCII, zero-padded to 32 bytes.
const CONFIG_EVENT: [u8; 32] = *b"cocoon/rtmr3/config/v1\0\0\0\0\0\0\0\0\0\0";
const MODEL_EVENT: [u8; 32] = *b"cocoon/rtmr3/model/v1\0\0\0\0\0\0\0\0\0\0\0";

/// The value of an RTMR that started at zero and was extended with the SHA-384 digests `events` in order: each time
/// `SHA-384(old || digest)` (Intel TDX Module ABI, TDG.MR.RTMR.EXTEND).
#[must_use]
pub fn replay_rtmr(events: &[[u8; 48]]) -> [u8; 48] {
    events.iter().fold([0; 48], |register, digest| crypto::sha384(&[&register, digest]))
}

/// What the enclave extends RTMR3 with for its configuration: `SHA-384(L("cocoon/rtmr3/config/v1") || config)`.
#[must_use]
pub fn config_event(config: &Digest) -> [u8; 48] {
    crypto::sha384(&[&CONFIG_EVENT, &config.0])
}

/// What the enclave extends RTMR3 with for a model: `SHA-384(L("cocoon/rtmr3/model/v1") || digest of its manifest)`.
#[must_use]
pub fn model_event(model: &Digest) -> [u8; 48] {
    crypto::sha384(&[&MODEL_EVENT, &model.0])
}

/// RTMR3 of an enclave with this configuration and these models: [`config_event`], then a [`model_event`] for each model in the
/// order of S. Nothing else extends RTMR3.
#[must_use]
pub fn expected_rtmr3(config: &Digest, models: &[Digest]) -> [u8; 48] {
    let events: Vec<_> =
        std::iter::once(config_event(config)).chain(models.iter().map(model_event)).collect();
    replay_rtmr(&events)
}

/// Factor `tdx.rtmr3.replay`: RTMR3 of `quote` is that of the configuration and models that the enclave states in S.
#[must_use]
pub fn rtmr3_factor(quote: &Quote, config: &Digest, models: &[Digest]) -> Factor {
    let [_, _, _, got] = quote.body.rtmr;
    let want = Measurement(expected_rtmr3(config, models));
    let help = "the enclave was started with another configuration or other models than it states";
    Factor::of("tdx.rtmr3.replay", got == want, got.to_string(), want.to_string(), help)
}

/// Firmware reserves 64 KiB by default; nothing larger is known.
const MAX_LOG_LEN: usize = 256 * 1024;

/// A kernel with its command line and many drivers stays far below this.
const MAX_EVENTS: usize = 4096;

/// The TCG's registry has five hash algorithms.
const MAX_ALGORITHMS: u32 = 8;

/// SHA-384 in the TCG's algorithm registry; a CC event log has no other register size.
const TPM_ALG_SHA384: u16 = 0x000c;

/// An event that is not extended into a register.
const EV_NO_ACTION: u32 = 3;

const SPEC_ID: [u8; 16] = *b"Spec ID Event03\0";

const WHAT: &str = "CC event log";

/// A CC event log (UEFI 2.10 section 38, in the crypto-agile format of the TCG PC Client Platform Firmware Profile, section 10).
/// Nobody signs it: it only explains registers that a quote has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// In the order of the log, without those that no register is extended with.
    pub events: Vec<Event>,
}

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// RTMR, 0 to 3.
    pub rtmr: u8,
    /// Event type of the TCG.
    pub kind: u32,
    /// SHA-384.
    pub digest: [u8; 48],
    /// What the firmware says about it.
    pub data: Vec<u8>,
}

impl EventLog {
    /// Reads a log that is all of `bytes`, but for bytes at the end that are all 0xff or all zero.
    ///
    /// # Errors
    /// `Malformed` for another format, an unknown register, an event without SHA-384 digest, and more than 256 KiB or 4096
    /// events.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_LOG_LEN {
            return Err(Error::malformed(
                WHAT,
                format!("{} bytes, at most {MAX_LOG_LEN} are allowed", bytes.len()),
            ));
        }
        let mut r = Reader::new(WHAT, bytes);
        let sizes = spec_id(&mut r)?;
        let mut events = Vec::new();
        let mut count = 0_usize;
        while !r.is_padding() {
            count = count.saturating_add(1);
            if count > MAX_EVENTS {
                return Err(Error::malformed(WHAT, format!("more than {MAX_EVENTS} events")));
            }
            events.extend(Event::read(&mut r, &sizes)?);
        }
        Ok(Self { events })
    }

    /// RTMR0 to RTMR3 as the log says they became.
    #[must_use]
    pub fn replay(&self) -> [Measurement; 4] {
        [0, 1, 2, 3].map(|rtmr| {
            let digests: Vec<_> = self.events.iter().filter(|e| e.rtmr == rtmr).map(|e| e.digest).collect();
            Measurement(replay_rtmr(&digests))
        })
    }

    /// Factor `tdx.event_log`: the RTMRs of `quote` are what this log makes of them. RTMR3 is the software's: what extends it may
    /// write no event.
    #[must_use]
    pub fn factor(&self, quote: &Quote) -> Factor {
        const NAME: &str = "tdx.event_log";
        let is_told = |rtmr| rtmr < 3 || self.events.iter().any(|event| event.rtmr == rtmr);
        let values = (0_u8..).zip(quote.body.rtmr.iter().zip(self.replay()));
        let told: Vec<_> = values.filter(|(rtmr, _)| is_told(*rtmr)).collect();
        let list = |equal: bool| {
            let of = told.iter().filter(|(_, (got, want))| (**got == *want) == equal);
            of.map(|(rtmr, _)| format!("RTMR{rtmr}")).collect::<Vec<_>>().join(", ")
        };
        let (same, other) = (list(true), list(false));
        if other.is_empty() {
            return Factor::pass(NAME, format!("{} events make {same}", self.events.len()));
        }
        let want = "RTMRs that are the replay of the log";
        Factor::fail(NAME, format!("another {other}"), want, "the log is of another boot, or it was altered")
    }
}

/// The first event, in the older format: which algorithms follow, with their sizes.
fn spec_id(r: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, Error> {
    let _register = r.u32_le()?;
    if r.u32_le()? != EV_NO_ACTION {
        return Err(Error::malformed(WHAT, "does not begin with a specification identifier"));
    }
    r.zeros(20, "digest of the first event")?;
    let len = usize::try_from(r.u32_le()?).unwrap_or(usize::MAX);
    let mut r = Reader::new(WHAT, r.take(len)?);
    if r.array::<16>()? != SPEC_ID {
        return Err(Error::malformed(WHAT, "not in the crypto-agile format"));
    }
    r.take(8)?; // Platform class, version, errata, size of UINTN.
    let algorithms = r.u32_le()?;
    if algorithms > MAX_ALGORITHMS {
        return Err(Error::malformed(
            WHAT,
            format!("{algorithms} algorithms, at most {MAX_ALGORITHMS} are allowed"),
        ));
    }
    let sizes = (0..algorithms).map(|_| Ok((r.u16_le()?, r.u16_le()?))).collect::<Result<Vec<_>, Error>>()?;
    let vendor_len = r.u8()?;
    r.take(vendor_len.into())?;
    r.finish()?;
    if !sizes.contains(&(TPM_ALG_SHA384, 48)) {
        return Err(Error::malformed(WHAT, "without SHA-384"));
    }
    Ok(sizes)
}

impl Event {
    /// `None` for an event that is not extended.
    fn read(r: &mut Reader<'_>, sizes: &[(u16, u16)]) -> Result<Option<Self>, Error> {
        let (register, kind, digests) = (r.u32_le()?, r.u32_le()?, r.u32_le()?);
        if digests > MAX_ALGORITHMS {
            return Err(Error::malformed(WHAT, format!("an event with {digests} digests")));
        }
        let mut sha384 = None;
        for _ in 0..digests {
            let algorithm = r.u16_le()?;
            let size =
                sizes.iter().find(|(known, _)| *known == algorithm).map(|(_, size)| usize::from(*size));
            let size = size.ok_or_else(|| {
                Error::malformed(WHAT, format!("algorithm {algorithm:#x} is not announced"))
            })?;
            let digest = r.take(size)?;
            if algorithm == TPM_ALG_SHA384 && sha384.replace(digest).is_some() {
                return Err(Error::malformed(WHAT, "an event with two SHA-384 digests"));
            }
        }
        let len = usize::try_from(r.u32_le()?).unwrap_or(usize::MAX);
        let data = r.take(len)?.to_vec();
        if kind == EV_NO_ACTION {
            return Ok(None);
        }
        // Register 0 is MRTD, which nothing extends after launch.
        let rtmr = register.checked_sub(1).and_then(|n| u8::try_from(n).ok()).filter(|n| *n < 4);
        let rtmr = rtmr.ok_or_else(|| Error::malformed(WHAT, format!("register {register} is unknown")))?;
        let digest = sha384.and_then(|digest| digest.try_into().ok());
        let digest = digest.ok_or_else(|| Error::malformed(WHAT, "an event without SHA-384 digest"))?;
        Ok(Some(Self { rtmr, kind, digest, data }))
    }
}
