//! What NVIDIA endorses, as given with a report.

use super::ocsp::OcspResponse;
use super::rim::Rim;
use crate::Error;
use crate::endorsement::{Endorsement, EndorsementKind};

/// Two for each of eight GPUs.
const MAX_RIMS: usize = 16;
/// Three for each of eight GPUs, and three for the signers of their manifests.
const MAX_RESPONSES: usize = 64;

const WHAT: &str = "NVIDIA endorsements";

/// Manifests and OCSP responses. What is malformed is kept as such, and fails the factor that it was meant for.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    pub(super) rims: Vec<Result<Rim, Error>>,
    pub(super) responses: Vec<Result<OcspResponse, Error>>,
    /// Whether every manifest must be for this report.
    pub(super) exclusive: bool,
}

impl Endorsements {
    /// Those that were given for one report alone: a manifest that does not fit it is a fault.
    ///
    /// # Errors
    /// `Malformed` for more than 16 manifests or 64 responses.
    pub fn for_one(rims: &[&[u8]], responses: &[&[u8]]) -> Result<Self, Error> {
        Self::new(rims.iter().copied(), responses.iter().copied(), true)
    }

    /// Takes NVIDIA's among `given`, which may be for several GPUs: a manifest that does not fit a report is ignored.
    ///
    /// # Errors
    /// `Malformed`: as [`Endorsements::for_one`].
    pub fn from_stapled(given: &[Endorsement]) -> Result<Self, Error> {
        let of = |kind| given.iter().filter(move |e| e.kind == kind).map(|e| e.bytes.as_slice());
        Self::new(of(EndorsementKind::NvidiaRim), of(EndorsementKind::NvidiaOcsp), false)
    }

    fn new<'a>(
        rims: impl Iterator<Item = &'a [u8]>,
        responses: impl Iterator<Item = &'a [u8]>,
        exclusive: bool,
    ) -> Result<Self, Error> {
        let rims: Vec<_> = rims.take(MAX_RIMS.saturating_add(1)).map(Rim::parse).collect();
        let responses: Vec<_> =
            responses.take(MAX_RESPONSES.saturating_add(1)).map(OcspResponse::parse).collect();
        if rims.len() > MAX_RIMS || responses.len() > MAX_RESPONSES {
            return Err(Error::malformed(
                WHAT,
                format!("more than {MAX_RIMS} RIMs or {MAX_RESPONSES} OCSP responses"),
            ));
        }
        Ok(Self { rims, responses, exclusive })
    }
}
