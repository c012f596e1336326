//! What a device's boot ROM certified about the firmware that holds the attestation key.
//!
//! Sources: Microsoft RIoT "Device Identity with DICE and RIoT" (CompositeDeviceID, Hopper and NVSwitch); TCG DICE Attestation
//! Architecture 1.1, section 6.1.1 (DiceTcbInfo, Blackwell).

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::x509::{Certificate, sequence};

const COMPOSITE_DEVICE_ID: &str = "2.23.133.5.4.1";
const DICE_TCB_INFO: &str = "2.23.133.5.4.1.1";
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");

/// Fields of DiceTcbInfo.
const FWIDS: TagNumber = TagNumber::N6;
const FLAGS: TagNumber = TagNumber::N7;

/// OperationalFlags: notSecure (bit 1), recovery (bit 2), debug (bit 3), where bit 0 is the highest.
const INSECURE: u8 = 0b0111_0000;

/// The extension of an attestation key's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    /// SHA-384 of the firmware.
    pub(super) fwid: &'a [u8],
    /// The key of the device that the firmware runs on (uncompressed point), where the extension says it.
    pub(super) device_key: Option<&'a [u8]>,
    /// Whether the firmware runs insecurely, in recovery, or can be debugged, where the extension says it.
    pub(super) insecure: Option<bool>,
}

impl<'a> Identity<'a> {
    /// `None` if the certificate has not exactly one of the two extensions, well-formed.
    pub(super) fn of(certificate: &'a Certificate) -> Option<Self> {
        match (certificate.extension(COMPOSITE_DEVICE_ID), certificate.extension(DICE_TCB_INFO)) {
            (Some(extension), None) => Self::composite_device_id(extension).ok(),
            (None, Some(extension)) => Self::dice_tcb_info(extension).ok(),
            _ => None,
        }
    }

    /// `SEQUENCE { version INTEGER (1), deviceID SubjectPublicKeyInfo, fwid FWID }`
    fn composite_device_id(extension: &'a [u8]) -> der::Result<Self> {
        sequence(extension, |r| {
            if u8::decode(r)? != 1 {
                return Err(Tag::Integer.value_error());
            }
            let key = SubjectPublicKeyInfoRef::decode(r)?.subject_public_key.as_bytes();
            let device_key = Some(key.ok_or_else(|| Tag::BitString.value_error())?);
            Ok(Self { fwid: fwid(r)?, device_key, insecure: None })
        })
    }

    /// `SEQUENCE { .., fwids [6] SEQUENCE OF FWID, flags [7] BIT STRING, .. }`, all optional and implicitly tagged, in order.
    /// The first FWID is that of the firmware; the second one is not used.
    fn dice_tcb_info(extension: &'a [u8]) -> der::Result<Self> {
        let (fwids, flags) = sequence(extension, |r| {
            let (mut fwids, mut flags, mut last) = (None, None, None);
            while !r.is_finished() {
                let field = AnyRef::decode(r)?;
                let Tag::ContextSpecific { number, .. } = field.tag() else {
                    return Err(field.tag().unexpected_error(None));
                };
                if last.is_some_and(|last| last >= number) {
                    return Err(field.tag().value_error());
                }
                last = Some(number);
                match number {
                    FWIDS => fwids = Some(field.value()),
                    FLAGS => flags = Some(field.value()),
                    _ => {}
                }
            }
            Ok((fwids, flags))
        })?;
        let fwid = fwid(&mut SliceReader::new(fwids.ok_or_else(|| Tag::Sequence.value_error())?)?)?;
        // A BIT STRING's content: the number of unused bits, then the bits.
        let [0, first, ..] = flags.ok_or_else(|| Tag::BitString.value_error())? else {
            return Err(Tag::BitString.value_error());
        };
        Ok(Self { fwid, device_key: None, insecure: Some(first & INSECURE != 0) })
    }
}

/// `SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }` with SHA-384.
fn fwid<'a>(r: &mut impl Reader<'a>) -> der::Result<&'a [u8]> {
    r.sequence(|r| {
        let algorithm = ObjectIdentifier::decode(r)?;
        let digest = OctetStringRef::decode(r)?.as_bytes();
        if algorithm != SHA384 || digest.len() != 48 {
            return Err(Tag::OctetString.value_error());
        }
        Ok(digest)
    })
}
