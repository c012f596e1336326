//! What is asked of whom. URLs as the vendors define them: AMD 57230 chapter 4 (KDS), Intel PCS API v4, NVIDIA's RIM service and OCSP
//! responder (as nvtrust's verifier uses them).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::nvidia::{self, GpuEvidence, Rim};
use cocoon_attestation::snp::{Product, Report, SigningKey};
use cocoon_attestation::tdx::Quote;
use cocoon_attestation::x509::Certificate;
use cocoon_attestation::{Digest, Endorsement, EndorsementKind as Kind, vcek_subject};

use super::EndorsementError;
use super::http::Answer;

/// Base URLs, without a slash at the end.
#[derive(Clone, Debug)]
pub struct Services {
    /// AMD Key Distribution Service.
    pub amd_kds: String,
    /// Intel Provisioning Certification Service, or a caching service (PCCS) in front of it.
    pub intel_pcs: String,
    /// Where Intel keeps the list of its root.
    pub intel_certificates: String,
    /// NVIDIA's RIM service.
    pub nvidia_rim: String,
    /// NVIDIA's OCSP responder.
    pub nvidia_ocsp: String,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            amd_kds: "https://kdsintf.amd.com".to_owned(),
            intel_pcs: "https://api.trustedservices.intel.com".to_owned(),
            intel_certificates: "https://certificates.trustedservices.intel.com".to_owned(),
            nvidia_rim: "https://rim.attestation.nvidia.com".to_owned(),
            nvidia_ocsp: "https://ocsp.ndis.nvidia.com".to_owned(),
        }
    }
}

/// One request, and what must come of it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// For people.
    pub(super) what: String,
    pub(super) url: String,
    /// A POST with an OCSP request; otherwise a GET.
    pub(super) body: Option<Vec<u8>>,
    /// Kind and subject of what the answer holds.
    pub(super) expected: Vec<(Kind, String)>,
    /// How the answer holds it.
    pub(super) shape: Shape,
    /// Tells apart what has the same subject: two boards' manifests of one VBIOS version.
    pub(super) name: Option<String>,
}

/// How an answer holds endorsements.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// The body is what [`Endorsement::recognise`] knows.
    Plain,
    /// The body, and a chain percent-encoded in this header.
    WithChain(&'static str),
    /// JSON with the manifest in Base64 and its digest.
    RimService,
}

fn get(what: String, url: String, expected: Vec<(Kind, String)>) -> Wanted {
    Wanted { what, url, body: None, expected, shape: Shape::Plain, name: None }
}

/// Key, intermediate and revocation list.
pub(super) fn of_snp(
    report: &Report,
    product: Product,
    services: &Services,
) -> Result<Vec<Wanted>, EndorsementError> {
    let kds = &services.amd_kds;
    let mut out = Vec::new();
    let key = report.signing_key().map_err(|e| EndorsementError::Usage(e.to_string()))?;
    let (path, authority) = match key {
        SigningKey::Vlek => ("vlek", format!("SEV-VLEK-{product}")),
        SigningKey::Vcek => ("vcek", format!("SEV-{product}")),
    };
    if key == SigningKey::Vcek {
        let chip_id = report.chip_id.get(..product.chip_id_len()).unwrap_or_default();
        if chip_id.iter().all(|byte| *byte == 0) {
            let why = "the report hides CHIP_ID, so AMD cannot be asked for its VCEK: let the platform state it (MASK_CHIP_KEY 0)";
            return Err(EndorsementError::Usage(why.to_owned()));
        }
        let tcb = report.reported_tcb.parts(product);
        let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc:02}&")).unwrap_or_default();
        let url = format!(
            "{kds}/vcek/v1/{product}/{}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
            hex(chip_id),
            tcb.bootloader,
            tcb.tee,
            tcb.snp,
            tcb.microcode
        );
        let subject = vcek_subject(product, chip_id, tcb);
        out.push(get(format!("VCEK of a {product}"), url, vec![(Kind::AmdCertificate, subject)]));
    }
    let what = format!("{authority}, the issuer of the key");
    let url = format!("{kds}/{path}/v1/{product}/cert_chain");
    out.push(get(what, url, vec![(Kind::AmdCertificate, authority)]));
    let list = (Kind::AmdCrl, format!("ARK-{product}"));
    out.push(get(
        format!("revocation list of ARK-{product}"),
        format!("{kds}/{path}/v1/{product}/crl"),
        vec![list],
    ));
    Ok(out)
}

/// TCB info, QE identity and revocation lists, with their chains.
pub(super) fn of_quote(quote: &Quote, services: &Services) -> Result<Vec<Wanted>, EndorsementError> {
    let pcs = &services.intel_pcs;
    let fmspc = hex(&quote.pck.fmspc);
    let issuer = quote.pck.certificate.issuer_cn();
    let ca = match issuer.as_str() {
        "Intel SGX PCK Platform CA" => "platform",
        "Intel SGX PCK Processor CA" => "processor",
        _ => {
            return Err(EndorsementError::Usage(
                "the quote's PCK certificate is of no CA of Intel's".to_owned(),
            ));
        }
    };
    let signer = (Kind::IntelTcbSigningChain, "Intel SGX TCB Signing".to_owned());
    let with = |wanted: Wanted, header| Wanted { shape: Shape::WithChain(header), ..wanted };
    let tcb = get(
        format!("TCB info of FMSPC {fmspc}"),
        format!("{pcs}/tdx/certification/v4/tcb?fmspc={fmspc}"),
        vec![(Kind::IntelTcbInfo, fmspc), signer.clone()],
    );
    let identity = get(
        "identity of the TD quoting enclave".to_owned(),
        format!("{pcs}/tdx/certification/v4/qe/identity"),
        vec![(Kind::IntelQeIdentity, "TD_QE".to_owned()), signer],
    );
    let list = get(
        format!("revocation list of {issuer}"),
        format!("{pcs}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
        vec![(Kind::IntelPckCrl, issuer.clone()), (Kind::IntelPckCrlIssuerChain, issuer)],
    );
    let root = get(
        "revocation list of Intel SGX Root CA".to_owned(),
        format!("{}/IntelSGXRootCA.der", services.intel_certificates),
        vec![(Kind::IntelRootCaCrl, "Intel SGX Root CA".to_owned())],
    );
    Ok(vec![
        with(tcb, "TCB-Info-Issuer-Chain"),
        with(identity, "SGX-Enclave-Identity-Issuer-Chain"),
        with(list, "SGX-PCK-CRL-Issuer-Chain"),
        root,
    ])
}

/// The two manifests, and OCSP responses about the device's certificates.
pub(super) fn of_gpu(gpu: &GpuEvidence, services: &Services) -> Result<Vec<Wanted>, EndorsementError> {
    let usage = |why: &str| EndorsementError::Usage(why.to_owned());
    let chip = nvidia::chip(gpu);
    let ids = nvidia::rim_ids(&gpu.report, &chip)
        .ok_or_else(|| usage("the GPU's report does not say which manifests it needs"))?;
    let opaque = &gpu.report.opaque;
    let driver = opaque.driver_version().unwrap_or_default().to_owned();
    let vbios = opaque.vbios_version().unwrap_or_default().to_ascii_uppercase();
    let rims = ids.into_iter().zip([driver, vbios]).map(|(id, version)| Wanted {
        shape: Shape::RimService,
        name: Some(id.clone()),
        ..get(
            format!("manifest {id}"),
            format!("{}/v1/rim/{id}", services.nvidia_rim),
            vec![(Kind::NvidiaRim, format!("GPU {chip} {version}"))],
        )
    });
    let mut out: Vec<Wanted> = rims.collect();
    let device = nvidia::to_ask_about(gpu).map_err(|e| usage(&e.to_string()))?;
    for (certificate, issuer) in &device {
        out.push(ocsp(certificate, issuer, services)?);
    }
    Ok(out)
}

/// OCSP responses about those who signed a manifest.
pub(super) fn of_rim(rim: &[u8], services: &Services) -> Result<Vec<Wanted>, EndorsementError> {
    let rim = Rim::parse(rim).map_err(|e| EndorsementError::Usage(e.to_string()))?;
    rim.to_ask_about().map(|(certificate, issuer)| ocsp(certificate, issuer, services)).collect()
}

fn ocsp(
    certificate: &Certificate,
    issuer: &Certificate,
    services: &Services,
) -> Result<Wanted, EndorsementError> {
    let (request, subject) =
        nvidia::ocsp_request(certificate, issuer).map_err(|e| EndorsementError::Usage(e.to_string()))?;
    let what = format!("OCSP response about {}", certificate.subject_cn());
    let url = format!("{}/", services.nvidia_ocsp);
    Ok(Wanted { body: Some(request), ..get(what, url, vec![(Kind::NvidiaOcsp, subject)]) })
}

impl Wanted {
    /// The endorsements in an answer: everything that is expected, and nothing else is kept.
    pub(super) fn read(&self, answer: &Answer) -> Result<Vec<Endorsement>, String> {
        let mut found = match self.shape {
            Shape::RimService => vec![rim_of(&answer.body)?],
            Shape::Plain | Shape::WithChain(_) => recognise(&answer.body)?,
        };
        if let Shape::WithChain(header) = self.shape {
            let chain = answer.header(header).ok_or_else(|| format!("the header {header} is missing"))?;
            found.extend(recognise(
                &percent_decoded(chain).ok_or_else(|| format!("{header} is not percent-encoded"))?,
            )?);
        }
        let take = |(kind, subject): &(Kind, String)| {
            let fits = |item: &&Endorsement| {
                item.kind == *kind && item.about().is_ok_and(|about| about.subject == *subject)
            };
            let item = found.iter().find(fits).cloned();
            item.ok_or_else(|| format!("the answer is no {} of {subject}", kind.name()))
        };
        self.expected.iter().map(take).collect()
    }
}

fn recognise(bytes: &[u8]) -> Result<Vec<Endorsement>, String> {
    Endorsement::recognise(bytes).map_err(|e| e.to_string())
}

/// `{"id":..,"rim":base64,"sha256":base64,..}`; the digest is of the manifest.
fn rim_of(body: &[u8]) -> Result<Endorsement, String> {
    #[derive(serde::Deserialize)]
    struct Served {
        rim: String,
        sha256: Option<String>,
    }
    let served: Served = serde_json::from_slice(body)
        .map_err(|e| format!("not as the RIM service answers, line {}", e.line()))?;
    let bytes = STANDARD.decode(served.rim).map_err(|_quotes_input| "the manifest is not Base64")?;
    let digest = Digest::of(&bytes);
    // In hex or in Base64, by version of the service.
    let same =
        |text: &str| text.eq_ignore_ascii_case(&digest.to_string()) || text == STANDARD.encode(digest.0);
    if served.sha256.is_some_and(|text| !same(&text)) {
        return Err("the manifest has another digest than the service says".to_owned());
    }
    Ok(Endorsement { kind: Kind::NvidiaRim, bytes })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 3986 section 2.1; `None` for a `%` without two digits.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding() {
        assert_eq!(percent_decoded("a%0Ab%20c").unwrap(), b"a\nb c");
        for bad in ["%", "%0", "%zz", "a%"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn manifests_come_with_their_digest() {
        let body = |sha: &str| {
            format!("{{\"id\":\"x\",\"rim\":\"{}\",\"sha256\":\"{sha}\"}}", STANDARD.encode("rim"))
        };
        let digest = Digest::of(b"rim");
        assert_eq!(rim_of(body(&digest.to_string()).as_bytes()).unwrap().bytes, b"rim");
        assert_eq!(rim_of(body(&STANDARD.encode(digest.0)).as_bytes()).unwrap().bytes, b"rim");
        assert!(rim_of(body(&"0".repeat(64)).as_bytes()).unwrap_err().contains("another digest"));
        assert!(rim_of(b"{\"rim\":\"*\"}").unwrap_err().contains("Base64"));
        assert!(rim_of(b"<html>").unwrap_err().contains("line 1"));
    }
}
