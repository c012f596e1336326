//! TCB info and QE identity as Intel's provisioning certification service signs them (PCS API v4, "Get TDX TCB Info" and "Get
//! TDX QE Identity"; both are JSON).

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

use super::tcb::TcbStatus;
use crate::crypto::{SignatureCache, SignatureScheme};
use crate::x509::Certificate;
use crate::{Error, UnixTime};

/// The largest that Intel serves has 7 KiB; levels are added with every TCB recovery.
const MAX_LEN: usize = 64 * 1024;

/// A signed document, `{"NAME":BODY,"signature":"128 hex digits"}`, exactly as served.
#[derive(Clone, Debug)]
pub(super) struct Document<T> {
    /// The text of BODY: what is signed. It is never serialised again.
    signed: Vec<u8>,
    signature: [u8; 64],
    pub(super) body: T,
}

/// What tells the documents apart: Intel signs all of them with one key.
#[derive(Deserialize)]
struct Kind {
    id: String,
    version: u64,
}

pub(super) trait Body: DeserializeOwned {
    /// Name of the body's member.
    const MEMBER: &'static str;
    /// What it is, in errors.
    const WHAT: &'static str;
    const ID: &'static str;
    const VERSION: u64;

    /// Its own identifier and version.
    fn kind(&self) -> (&str, u64);
    /// issueDate and nextUpdate.
    fn validity(&self) -> (UnixTime, UnixTime);
}

impl<T: Body> Document<T> {
    /// Reads a document that is all of `bytes`.
    ///
    /// # Errors
    /// `Malformed` for another outer shape, a repeated or missing member, another type or range, and another kind of document.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::malformed(T::WHAT, why));
        if bytes.len() > MAX_LEN {
            return refuse(format!("{} bytes, at most {MAX_LEN} are allowed", bytes.len()));
        }
        let Some((signed, signature)) = split(bytes, T::MEMBER) else {
            return refuse(format!("not {{\"{}\":..,\"signature\":\"..\"}} as Intel serves it", T::MEMBER));
        };
        match serde_json::from_slice::<T>(signed) {
            Ok(body) => {
                let (id, version) = body.kind();
                of_kind::<T>(id, version)?;
                Ok(Self { signed: signed.to_vec(), signature, body })
            }
            Err(error) => {
                // A document of another kind has other members: say that rather than which one is missing.
                if let Ok(kind) = serde_json::from_slice::<Kind>(signed) {
                    of_kind::<T>(&kind.id, kind.version)?;
                }
                // The library's message can quote input: only the place is told.
                refuse(format!("not as specified, column {}", error.column()))
            }
        }
    }

    pub(super) fn is_signed_by(&self, signer: &Certificate, known: &SignatureCache) -> bool {
        let scheme = SignatureScheme::EcdsaP256Sha256Fixed;
        signer.key_for(scheme).is_some_and(|key| known.verify(scheme, key, &self.signed, &self.signature))
    }

    /// What is wrong with its dates at `now`.
    pub(super) fn out_of_date(&self, now: UnixTime) -> Option<String> {
        let ((start, end), what) = (self.body.validity(), T::WHAT);
        if now < start {
            return Some(format!("the {what} is not valid before {start}"));
        }
        (now > end).then(|| format!("the {what} expired at {end}"))
    }
}

/// FMSPC, and issueDate with nextUpdate, of TCB info.
pub(crate) fn about_tcb_info(bytes: &[u8]) -> Result<(String, (UnixTime, UnixTime)), Error> {
    let Document { body, .. } = Document::<TcbInfo>::read(bytes)?;
    Ok((crate::types::to_hex(&body.fmspc.0), body.validity()))
}

/// issueDate and nextUpdate of the QE identity.
pub(crate) fn about_qe_identity(bytes: &[u8]) -> Result<(UnixTime, UnixTime), Error> {
    Document::<QeIdentity>::read(bytes).map(|document| document.body.validity())
}

/// Body and signature. The body ends where exactly the signature member, and nothing else, follows; that it is one JSON value is
/// seen when it is read.
fn split<'a>(bytes: &'a [u8], member: &str) -> Option<(&'a [u8], [u8; 64])> {
    let rest =
        bytes.trim_ascii().strip_prefix(format!("{{\"{member}\":").as_bytes())?.strip_suffix(b"\"}")?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(128)?)?;
    let mut signature = [0; 64];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    Some((rest.strip_suffix(b",\"signature\":\"")?, signature))
}

fn of_kind<T: Body>(id: &str, version: u64) -> Result<(), Error> {
    if (id, version) == (T::ID, T::VERSION) {
        return Ok(());
    }
    let id: String = id.chars().filter(char::is_ascii_graphic).take(16).collect();
    let why = format!("{id} of version {version}, expected {} of version {}", T::ID, T::VERSION);
    Err(Error::malformed(T::WHAT, why))
}

/// TCB info, version 3.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    id: String,
    version: u64,
    issue_date: Date,
    next_update: Date,
    pub(super) fmspc: Hex<6>,
    pub(super) pce_id: Hex<2>,
    /// 0: how SVNs are compared; Intel defines no other.
    #[serde(deserialize_with = "zero", rename = "tcbType")]
    _tcb_type: (),
    pub(super) tcb_evaluation_data_number: u64,
    /// The module where TEE_TCB_SVN has no module version.
    pub(super) tdx_module: TdxModule,
    /// Modules by version. Absent before 2023.
    #[serde(default)]
    pub(super) tdx_module_identities: Vec<TdxModuleIdentity>,
    /// Best first.
    pub(super) tcb_levels: Vec<TcbLevel>,
}

/// Who must have signed the TDX module.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TdxModule {
    pub(super) mrsigner: Hex<48>,
    pub(super) attributes: Hex<8>,
    pub(super) attributes_mask: Hex<8>,
}

/// The same for one version of the module, with its levels, best first.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TdxModuleIdentity {
    /// `TDX_` and the version as two hex digits.
    pub(super) id: String,
    pub(super) mrsigner: Hex<48>,
    pub(super) attributes: Hex<8>,
    pub(super) attributes_mask: Hex<8>,
    pub(super) tcb_levels: Vec<SvnLevel>,
}

impl TdxModuleIdentity {
    pub(super) fn module(&self) -> TdxModule {
        TdxModule {
            mrsigner: self.mrsigner,
            attributes: self.attributes,
            attributes_mask: self.attributes_mask,
        }
    }
}

/// A level of a TDX module or of the quoting enclave.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SvnLevel {
    pub(super) tcb: IsvSvn,
    pub(super) tcb_status: TcbStatus,
    #[serde(default, rename = "advisoryIDs")]
    pub(super) advisory_ids: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct IsvSvn {
    pub(super) isvsvn: u16,
}

/// A level of the platform.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbLevel {
    pub(super) tcb: PlatformSvns,
    pub(super) tcb_status: TcbStatus,
    #[serde(default, rename = "advisoryIDs")]
    pub(super) advisory_ids: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PlatformSvns {
    pub(super) sgxtcbcomponents: [Component; 16],
    pub(super) pcesvn: u16,
    pub(super) tdxtcbcomponents: [Component; 16],
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Component {
    pub(super) svn: u8,
}

impl Body for TcbInfo {
    const MEMBER: &'static str = "tcbInfo";
    const WHAT: &'static str = "TCB info";
    const ID: &'static str = "TDX";
    const VERSION: u64 = 3;

    fn kind(&self) -> (&str, u64) {
        (&self.id, self.version)
    }

    fn validity(&self) -> (UnixTime, UnixTime) {
        (self.issue_date.0, self.next_update.0)
    }
}

/// Identity of the TD quoting enclave, version 2.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QeIdentity {
    id: String,
    version: u64,
    issue_date: Date,
    next_update: Date,
    pub(super) tcb_evaluation_data_number: u64,
    pub(super) miscselect: Hex<4>,
    pub(super) miscselect_mask: Hex<4>,
    pub(super) attributes: Hex<16>,
    pub(super) attributes_mask: Hex<16>,
    pub(super) mrsigner: Hex<32>,
    pub(super) isvprodid: u16,
    /// Best first.
    pub(super) tcb_levels: Vec<SvnLevel>,
}

impl Body for QeIdentity {
    const MEMBER: &'static str = "enclaveIdentity";
    const WHAT: &'static str = "QE identity";
    const ID: &'static str = "TD_QE";
    const VERSION: u64 = 2;

    fn kind(&self) -> (&str, u64) {
        (&self.id, self.version)
    }

    fn validity(&self) -> (UnixTime, UnixTime) {
        (self.issue_date.0, self.next_update.0)
    }
}

/// Bytes as hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Hex<N> {
    /// Whether `value` is this one where `mask` has ones.
    pub(super) fn is_under(&self, mask: &Self, value: &[u8; N]) -> bool {
        let masked =
            |bytes: &[u8; N]| bytes.iter().zip(&mask.0).map(|(byte, mask)| byte & mask).collect::<Vec<_>>();
        masked(&self.0) == masked(value)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut bytes = [0; N];
        let text = <&str>::deserialize(d)?;
        hex::decode_to_slice(text, &mut bytes).map_err(|_quotes_input| D::Error::custom("hex digits"))?;
        Ok(Self(bytes))
    }
}

/// `2026-08-13T10:45:38Z`
#[derive(Clone, Copy, Debug)]
struct Date(UnixTime);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let time: der::DateTime =
            <&str>::deserialize(d)?.parse().map_err(|_no_detail| D::Error::custom("a date"))?;
        Ok(Self(UnixTime(time.unix_duration().as_secs())))
    }
}

fn zero<'de, D: Deserializer<'de>>(d: D) -> Result<(), D::Error> {
    if u64::deserialize(d)? == 0 { Ok(()) } else { Err(D::Error::custom("0")) }
}
