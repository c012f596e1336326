//! From the attestation key of a GPU to NVIDIA's pinned root, and what the certificates say about the device.
//!
//! ```text
//! root -- identity of a family -- provisioner -- boot ROM of one device -- firmware with the attestation key --signs--> report
//! ```
//!
//! The last certificate but one is made in the factory and lasts; the last one is made by the device whenever its firmware changes,
//! so NVIDIA cannot revoke it and no OCSP responder knows it.

use super::dice;
use crate::crypto::SignatureScheme;
use crate::x509::{Certificate, CertificatePath};
use crate::{Context, Error};

/// What chains must end in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// Of devices.
    pub device: Certificate,
    /// Of those who sign manifests.
    pub rim: Certificate,
}

impl Anchors {
    /// NVIDIA Device Identity CA and NVIDIA CoRIM signing Root CA, which are built in.
    ///
    /// # Errors
    /// None in practice: the certificates are built in.
    pub fn nvidia() -> Result<Self, Error> {
        Ok(Self {
            device: Certificate::from_der(include_bytes!("roots/device_identity_ca.der"))?,
            rim: Certificate::from_der(include_bytes!("roots/corim_signing_root_ca.der"))?,
        })
    }
}

/// Generation of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arch {
    /// H100, H200.
    Hopper,
    /// B200 and its relatives.
    Blackwell,
}

impl Arch {
    /// By the name of the chip, as certificates and manifests have it. `None` for an NVSwitch and for chips that nobody has tried.
    #[must_use]
    pub fn of_chip(chip: &str) -> Option<Self> {
        match chip {
            "GH100" => Some(Self::Hopper),
            "GB100" => Some(Self::Blackwell),
            _ => None,
        }
    }

    /// `Hopper` or `Blackwell`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hopper => "Hopper",
            Self::Blackwell => "Blackwell",
        }
    }

    /// How the manifests of its drivers are named: see [`super::rim_ids`].
    pub(super) fn driver_rim_prefix(self) -> &'static str {
        match self {
            Self::Hopper => "NV_GPU_DRIVER",
            Self::Blackwell => "NV_GPU_CC_DRIVER",
        }
    }
}

/// A device's chain, leaf first, as it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceChain<'a> {
    /// As it was given, without the anchor.
    pub(super) certificates: &'a [Certificate],
    anchor: &'a Certificate,
}

impl<'a> DeviceChain<'a> {
    pub(super) fn new(given: &'a [Certificate], anchor: &'a Certificate) -> Self {
        // The pinned root is taken, never the one that comes with the evidence.
        let certificates = match given.split_last() {
            Some((last, rest)) if last == anchor => rest,
            _ => given,
        };
        Self { certificates, anchor }
    }

    /// Holds the attestation key.
    fn leaf(&self) -> Option<&'a Certificate> {
        self.certificates.first()
    }

    pub(super) fn path(&self) -> CertificatePath<'a> {
        CertificatePath { certificates: self.certificates.iter().collect(), anchor: self.anchor }
    }

    pub(super) fn key(&self) -> Option<&'a [u8]> {
        self.leaf().and_then(|leaf| leaf.key_for(SignatureScheme::EcdsaP384Sha384Fixed))
    }

    /// What is wrong with the chain; empty if nothing is.
    pub(super) fn faults(&self, ctx: Context<'_>) -> Vec<String> {
        let mut faults = self.path().faults(ctx.now, ctx.signatures);
        let Some(leaf) = self.leaf() else {
            faults.push("there is no certificate of a device".to_owned());
            return faults;
        };
        let roots = self.certificates.iter().filter(|c| c.is_self_issued());
        faults.extend(roots.map(|root| {
            format!(
                "the root that was given, {}, is not the pinned {}",
                root.subject_cn(),
                self.anchor.subject_cn()
            )
        }));
        match dice::Identity::of(leaf) {
            None => faults.push(format!("{} does not say which firmware it is of (FWID)", leaf.subject_cn())),
            Some(dice) => {
                let maker = self.certificates.get(1).map(Certificate::public_key);
                if dice.device_key.is_some_and(|key| maker != Some(key)) {
                    faults.push(format!("{} is of another device than its issuer", leaf.subject_cn()));
                }
            }
        }
        faults
    }

    /// What the attestation key's certificate says about its firmware.
    pub(super) fn dice(&self) -> Option<dice::Identity<'a>> {
        self.leaf().and_then(dice::Identity::of)
    }

    /// Name of the chip: what leaf and issuer are both named after.
    pub(super) fn chip(&self) -> String {
        let Some(leaf) = self.leaf() else { return String::new() };
        let chip = |name: String| name.split(' ').next().unwrap_or_default().to_owned();
        let own = chip(leaf.subject_cn());
        if own == chip(leaf.issuer_cn()) { own } else { String::new() }
    }

    /// Names the device for good: serial number of the certificate of its boot ROM, lower-case hex. Empty without one.
    pub(super) fn ueid(&self) -> String {
        self.certificates.get(1).map(|boot_rom| crate::types::to_hex(boot_rom.serial())).unwrap_or_default()
    }

    /// Names the attestation key: its certificate's serial number, lower-case hex. NVIDIA's tools call its decimal form the UEID.
    pub(super) fn key_serial(&self) -> String {
        self.leaf().map(|leaf| crate::types::to_hex(leaf.serial())).unwrap_or_default()
    }
}
