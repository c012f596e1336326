//! What Intel endorses, as the host staples it or a file holds it: read once, then fitted to a quote.

use super::pck::Pck;
use super::tcb_info::{Body, Document, QeIdentity, TcbInfo};
use crate::x509::{Certificate, CertificatePath, RevocationList};
use crate::{Context, Endorsement, EndorsementKind, Error};

/// A host that staples for several platforms gives a handful of each kind. Each document costs at most one signature verification
/// for each signing key: 130 in all.
const MAX_PER_KIND: usize = 8;

/// Signing key or CA, and the root.
const MAX_CHAIN_LEN: usize = 4;

/// Subject of the key that signs TCB info and identities. Keys of platforms chain to the same root, and must not.
const TCB_SIGNER: &str = "Intel SGX TCB Signing";

/// Endorsements of Intel, read but not verified.
#[derive(Clone, Debug, Default)]
pub struct Endorsements {
    tcb_infos: Given<Document<TcbInfo>>,
    qe_identities: Given<Document<QeIdentity>>,
    signers: Given<Certificate>,
    pck_crls: Given<RevocationList>,
    root_crls: Given<RevocationList>,
}

/// Those of one kind. What cannot be read matters only if nothing else fits.
#[derive(Clone, Debug)]
struct Given<T> {
    read: Vec<T>,
    unreadable: Vec<String>,
}

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self { read: Vec::new(), unreadable: Vec::new() }
    }
}

impl<T> Given<T> {
    fn add(&mut self, result: Result<Vec<T>, Error>) {
        match result {
            Ok(items) => self.read.extend(items),
            Err(error) => self.unreadable.push(error.to_string()),
        }
    }

    fn is_empty(&self) -> bool {
        self.read.is_empty() && self.unreadable.is_empty()
    }
}

/// What was found for a quote among the endorsements of one kind.
#[derive(Clone, Debug)]
pub(super) enum Fit<T> {
    /// None of the kind was given.
    Missing,
    /// Some were given, but none is for this quote: why.
    None(String),
    /// The best one, with what is wrong with it at this time.
    Best(T, Vec<String>),
}

impl<T> Fit<T> {
    /// The best one, whatever is wrong with it.
    pub(super) fn best(&self) -> Option<&T> {
        match self {
            Self::Best(item, _) => Some(item),
            Self::Missing | Self::None(_) => None,
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        match self {
            Self::Missing => Vec::new(),
            Self::None(why) => vec![why.clone()],
            Self::Best(_, faults) => faults.clone(),
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

/// A document, who signed it, and that certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endorsed<'a, T> {
    pub(super) body: &'a T,
    /// `None` if none of the certificates that were given did.
    pub(super) signer: Option<&'a Certificate>,
}

impl Endorsements {
    /// Reads those of Intel's kinds among `given`; others are ignored, and so is what cannot be read as long as something else
    /// of its kind fits.
    ///
    /// # Errors
    /// `Malformed` for more than 8 of one kind.
    pub fn new(given: &[Endorsement]) -> Result<Self, Error> {
        let mut out = Self::default();
        for Endorsement { kind, bytes } in given {
            if given.iter().filter(|other| other.kind == *kind).count() > MAX_PER_KIND && is_intel(*kind) {
                let why = format!("more than {MAX_PER_KIND} of kind {}", kind.name());
                return Err(Error::malformed("TDX endorsements", why));
            }
            out.read(*kind, bytes);
        }
        Ok(out)
    }

    fn read(&mut self, kind: EndorsementKind, bytes: &[u8]) {
        let one = |list: Result<RevocationList, Error>| list.map(|list| vec![list]);
        match kind {
            EndorsementKind::IntelTcbInfo => self.tcb_infos.add(Document::read(bytes).map(|d| vec![d])),
            EndorsementKind::IntelQeIdentity => {
                self.qe_identities.add(Document::read(bytes).map(|d| vec![d]))
            }
            EndorsementKind::IntelTcbSigningChain => {
                // The key comes first; what is above it is pinned.
                let key = Certificate::ders_of_pem(bytes, MAX_CHAIN_LEN)
                    .and_then(|chain| chain.iter().take(1).map(|der| Certificate::from_der(der)).collect());
                self.signers.add(key);
            }
            EndorsementKind::IntelPckCrl => self.pck_crls.add(one(RevocationList::from_pem_or_der(bytes))),
            EndorsementKind::IntelRootCaCrl => {
                self.root_crls.add(one(RevocationList::from_pem_or_der(bytes)))
            }
            // The list of PCK certificates must be of the very CA that issued this one, whose certificate is in the quote.
            EndorsementKind::IntelPckCrlIssuerChain
            | EndorsementKind::AmdCertificate
            | EndorsementKind::AmdCrl
            | EndorsementKind::NvidiaRim
            | EndorsementKind::NvidiaOcsp => {}
        }
    }
}

fn is_intel(kind: EndorsementKind) -> bool {
    kind.name().starts_with("intel-")
}

/// Looks for what fits, and verifies it: signatures, chains, dates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) given: &'a Endorsements,
    pub(super) anchor: &'a Certificate,
    pub(super) ctx: Context<'a>,
}

impl<'a> Search<'a> {
    /// The TCB info for the platform of `pck`.
    pub(super) fn tcb_info(&self, pck: &Pck) -> Fit<Endorsed<'a, TcbInfo>> {
        let fits = |info: &TcbInfo| (info.fmspc.0, info.pce_id.0) == (pck.fmspc, pck.pce_id);
        let wanted = format!(
            "FMSPC {} and PCE-ID {}",
            crate::types::to_hex(&pck.fmspc),
            crate::types::to_hex(&pck.pce_id)
        );
        self.document(&self.given.tcb_infos, fits, |info| info.tcb_evaluation_data_number, &wanted)
    }

    /// The identity of the TD quoting enclave.
    pub(super) fn qe_identity(&self) -> Fit<Endorsed<'a, QeIdentity>> {
        let number = |identity: &QeIdentity| identity.tcb_evaluation_data_number;
        self.document(&self.given.qe_identities, |_any| true, number, "the TD quoting enclave")
    }

    /// Of several that fit, a faultless one is taken, and of those the one that knows of the most TCB recoveries: a host gains
    /// nothing by stapling an older one beside it.
    fn document<T: Body>(
        &self,
        given: &'a Given<Document<T>>,
        fits: impl Fn(&T) -> bool,
        evaluation_number: impl Fn(&T) -> u64,
        wanted: &str,
    ) -> Fit<Endorsed<'a, T>> {
        let mut fitting: Vec<_> = given.read.iter().filter(|document| fits(&document.body)).collect();
        fitting.sort_by_key(|d| std::cmp::Reverse((evaluation_number(&d.body), d.body.validity())));
        let appraised = fitting.into_iter().map(|document| {
            let (signer, mut faults) = self.signer(document);
            faults.extend(document.out_of_date(self.ctx.now));
            (Endorsed { body: &document.body, signer }, faults)
        });
        best(given, appraised, || format!("no {} that was given is for {wanted}", T::WHAT))
    }

    /// Who signed `document`, with what is wrong with the certificate. That no chain was given is told by
    /// [`Search::has_signer`], and is no fault.
    fn signer<T: Body>(&self, document: &Document<T>) -> (Option<&'a Certificate>, Vec<String>) {
        if !self.has_signer() {
            return (None, Vec::new());
        }
        let mut first = None;
        for signer in
            self.given.signers.read.iter().filter(|signer| document.is_signed_by(signer, self.ctx.signatures))
        {
            let faults = self.signer_faults(signer);
            if faults.is_empty() {
                return (Some(signer), faults);
            }
            first.get_or_insert((Some(signer), faults));
        }
        first.unwrap_or_else(|| {
            let why = format!("the {} is not signed by the TCB signing key that was given", T::WHAT);
            (None, std::iter::once(why).chain(self.given.signers.unreadable.iter().cloned()).collect())
        })
    }

    /// The signing key is directly below the root, and is that key: PCK certificates chain to the same root.
    fn signer_faults(&self, signer: &Certificate) -> Vec<String> {
        let path = CertificatePath { certificates: vec![signer], anchor: self.anchor };
        let mut faults = path.faults(self.ctx.now, self.ctx.signatures);
        if signer.subject_cn() != TCB_SIGNER {
            faults.push(format!("{} is not {TCB_SIGNER}", signer.subject_cn()));
        }
        faults
    }

    /// Whether a chain of the TCB signing key was given at all.
    pub(super) fn has_signer(&self) -> bool {
        !self.given.signers.is_empty()
    }

    /// The revocation list of the CA that issued the PCK certificate.
    pub(super) fn pck_crl(&self, ca: &Certificate) -> Fit<&'a RevocationList> {
        self.revocation_list(&self.given.pck_crls, ca)
    }

    /// The revocation list of the root.
    pub(super) fn root_crl(&self) -> Fit<&'a RevocationList> {
        self.revocation_list(&self.given.root_crls, self.anchor)
    }

    /// Of several, a faultless one is taken, and of those the newest.
    fn revocation_list(
        &self,
        given: &'a Given<RevocationList>,
        issuer: &Certificate,
    ) -> Fit<&'a RevocationList> {
        let mut fitting: Vec<_> = given.read.iter().filter(|list| list.names_issuer(issuer)).collect();
        fitting.sort_by_key(|list| std::cmp::Reverse(list.validity()));
        let appraised =
            fitting.into_iter().map(|list| (list, list.faults(issuer, self.ctx.now, self.ctx.signatures)));
        best(given, appraised, || format!("no revocation list that was given is of {}", issuer.subject_cn()))
    }
}

/// The first one without faults, or else the first one.
fn best<T, U>(
    given: &Given<T>,
    fitting: impl Iterator<Item = (U, Vec<String>)>,
    none: impl Fn() -> String,
) -> Fit<U> {
    if given.is_empty() {
        return Fit::Missing;
    }
    let mut first = None;
    for (item, faults) in fitting {
        if faults.is_empty() {
            return Fit::Best(item, faults);
        }
        first.get_or_insert((item, faults));
    }
    first.map_or_else(
        || {
            let why: Vec<String> = std::iter::once(none()).chain(given.unreadable.iter().cloned()).collect();
            Fit::None(why.join("; "))
        },
        |(item, faults)| Fit::Best(item, faults),
    )
}
