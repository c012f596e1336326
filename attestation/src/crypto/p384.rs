//! ECDSA on P-384 with SHA-384, which is most of what an appraisal costs: AMD and NVIDIA sign everything with it.
//!
//! graviola takes a third of ring's time (proven assembly of s2n-bignum) and needs instructions that every server and most
//! clients of the last ten years have; without them it panics, so it is asked only where they are. The two agree on every
//! signature: a test holds them against each other.

use der::Decode;
use der::asn1::UintRef;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use graviola::{
    hashing::Sha384,
    signing::ecdsa::{P384, VerifyingKey},
};
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::x509::sequence;

/// r and s, big-endian.
type Fixed = [u8; 96];

/// Whether `key` (uncompressed point, 97 bytes) signed `message`; `signature`: r || s, big-endian.
pub(super) fn verify_fixed(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    if is_fast() { graviola(key, message, signature) } else { ring(key, message, signature) }
}

/// The same for `Ecdsa-Sig-Value`, DER (RFC 3279 section 2.2.3).
pub(super) fn verify_der(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    fixed(signature).is_ok_and(|signature| verify_fixed(key, message, &signature))
}

fn fixed(der: &[u8]) -> der::Result<Fixed> {
    let (r, s) = sequence(der, |reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)))?;
    let mut out = [0; 96];
    for (number, half) in [r, s].into_iter().zip(out.chunks_mut(48)) {
        let bytes = number.as_bytes();
        let too_long = || der::Tag::Integer.length_error();
        let start = half.len().checked_sub(bytes.len()).ok_or_else(too_long)?;
        half.get_mut(start..).ok_or_else(too_long)?.copy_from_slice(bytes);
    }
    Ok(out)
}

fn ring(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn graviola(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    VerifyingKey::<P384>::from_x962_uncompressed(key)
        .and_then(|key| key.verify::<Sha384>(&[message], signature))
        .is_ok()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use ring as graviola;

/// Whether this processor has what graviola needs, by its documentation. The standard library asks the processor once.
#[cfg(target_arch = "x86_64")]
fn is_fast() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("adx")
        && has!("aes")
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("pclmulqdq")
}

/// Whether this processor has what graviola needs, by its documentation. The standard library asks the processor once.
#[cfg(target_arch = "aarch64")]
fn is_fast() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("aes") && has!("neon") && has!("pmull") && has!("sha2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn is_fast() -> bool {
    false
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "an overflow here is a failed test")]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    const MESSAGE: &[u8] = b"a report";

    /// n, the order of the group (NIST SP 800-186 section 3.2.1.4).
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                         c7634d81f4372ddf581a0db248b0a77aecec196accc52973";

    #[test]
    fn a_number_of_49_bytes_is_no_part_of_a_signature() {
        let number = |len: u8| [&[2, len, 1][..], &vec![7; usize::from(len) - 1]].concat();
        let sequence = |r: u8, s: u8| {
            let content = [number(r), number(s)].concat();
            [&[0x30, u8::try_from(content.len()).unwrap()][..], &content].concat()
        };
        assert!(fixed(&sequence(48, 48)).is_ok());
        assert!(fixed(&sequence(49, 48)).is_err() && fixed(&sequence(48, 49)).is_err());
        assert!(!verify_der(&[4; 97], MESSAGE, &sequence(49, 48)));
    }

    fn signed() -> (Vec<u8>, Vec<u8>) {
        let (algorithm, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        let signature = key.sign(&random, MESSAGE).unwrap();
        (key.public_key().as_ref().to_vec(), signature.as_ref().to_vec())
    }

    /// What both say; they must say the same.
    #[track_caller]
    fn both(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let ring = ring(key, message, signature);
        if is_fast() {
            assert_eq!(
                graviola(key, message, signature),
                ring,
                "{} {}",
                hex::encode(key),
                hex::encode(signature)
            );
        } else {
            println!("skipped: graviola does not run on this processor");
        }
        ring
    }

    #[test]
    fn ring_and_graviola_agree() {
        for _ in 0..20 {
            let (key, signature) = signed();
            assert!(both(&key, MESSAGE, &signature));
            assert!(!both(&key, b"another report", &signature));
            assert!(!both(&signed().0, MESSAGE, &signature));
        }
        let (key, signature) = signed();
        for n in 0..signature.len() {
            let mut turned = signature.clone();
            turned[n] ^= 1 << (n % 8);
            assert!(!both(&key, MESSAGE, &turned), "byte {n}");
        }
        for n in 0..key.len() {
            let mut turned = key.clone();
            turned[n] ^= 1 << (n % 8);
            assert!(!both(&turned, MESSAGE, &signature), "byte {n}");
        }
        for len in 0..signature.len() {
            assert!(!both(&key, MESSAGE, &signature[..len]));
        }
        for len in 0..key.len() {
            assert!(!both(&key[..len], MESSAGE, &signature));
        }
        assert!(!both(&key, MESSAGE, &[&signature[..], &[0]].concat()));
        assert!(!both(&[&key[..], &[0]].concat(), MESSAGE, &signature));
    }

    #[test]
    fn numbers_that_are_none_of_the_group_are_refused() {
        let (key, signature) = signed();
        let (r, s) = signature.split_at(48);
        let order = hex::decode(ORDER).unwrap();
        let mut last = order.clone();
        last[47] -= 1;
        let ends = [vec![0; 48], [vec![0; 47], vec![1]].concat(), last, order, vec![0xff; 48]];
        for bad in ends {
            assert!(!both(&key, MESSAGE, &[&bad, s].concat()));
            assert!(!both(&key, MESSAGE, &[r, &bad].concat()));
            assert!(!both(&key, MESSAGE, &[&bad[..], &bad].concat()));
            let point = [&[4], &bad[..], &key[49..]].concat();
            assert!(!both(&point, MESSAGE, &signature));
        }
        // Infinity, and compressed points.
        for first in [0, 2, 3, 5] {
            let mut point = key.clone();
            point[0] = first;
            assert!(!both(&point, MESSAGE, &signature));
            assert!(!both(&point[..49], MESSAGE, &signature));
        }
    }

    fn der_of(signature: &[u8]) -> Vec<u8> {
        let integer = |bytes: &[u8]| {
            let digits: Vec<u8> = bytes.iter().skip_while(|byte| **byte == 0).copied().collect();
            let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
            [&[2, u8::try_from(sign.len() + digits.len()).unwrap()], sign, &digits].concat()
        };
        let (r, s) = signature.split_at(48);
        let content = [integer(r), integer(s)].concat();
        [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat()
    }

    #[test]
    fn der_has_one_form() {
        let (key, signature) = signed();
        let der = der_of(&signature);
        assert!(verify_der(&key, MESSAGE, &der));
        assert_eq!(fixed(&der).unwrap().to_vec(), signature);
        for len in 0..der.len() {
            assert!(!verify_der(&key, MESSAGE, &der[..len]), "{len}");
        }
        assert!(!verify_der(&key, MESSAGE, &[&der[..], &[0]].concat()));
        // A zero that is not needed, a negative number, a number that is too long, a third one.
        let [tag, length, content @ ..] = &der[..] else { panic!("no sequence") };
        let wrapped =
            |content: Vec<u8>| [&[*tag, u8::try_from(content.len()).unwrap()], &content[..]].concat();
        let inner_length = usize::from(content[1]);
        let mut padded = content.to_vec();
        padded[1] += 1;
        padded.insert(2, 0);
        assert!(!verify_der(&key, MESSAGE, &wrapped(padded)));
        let mut negative = content.to_vec();
        if negative[2] == 0 {
            negative.remove(2);
            negative[1] -= 1;
        } else {
            negative[2] |= 0x80;
        }
        assert!(!verify_der(&key, MESSAGE, &wrapped(negative)));
        let long = [vec![2, 50], vec![1; 50], content[2 + inner_length..].to_vec()].concat();
        assert!(fixed(&wrapped(long)).is_err());
        assert!(!verify_der(&key, MESSAGE, &wrapped([content, &[2, 1, 1]].concat())));
        assert_eq!(usize::from(*length), content.len());
    }
}
