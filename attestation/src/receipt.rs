//! Receipts (`protocol.md`, Receipts): what an enclave signs about each answer. A client holds it against the session it verified; a
//! third party against the epoch statement. It names digests and counts, no person and no text.

use crate::cbor::{self, Fields};
use crate::crypto::{SignatureScheme, sha256};
use crate::wire::EpochStatement;
use crate::{Digest, Error};

/// A receipt is about 250 bytes, a bundle 2 KiB.
const MAX_LEN: usize = 1024;
const MAX_BUNDLE_LEN: usize = 16 * 1024;
const MAX_FINISH_REASON: usize = 32;

const VERSION: &str = "cocoon-receipt/1";
const BUNDLE_VERSION: &str = "cocoon-receipt-bundle/1";
/// Keeps these signatures apart from others of the same key.
const LABEL: &[u8; 32] = b"cocoon/receipt/v1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What was answered to what, by which model, with how many tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// SHA-256 of the epoch statement of the enclave.
    pub statement: Digest,
    /// SHA-256 of the body of the request, padding included.
    pub request: Digest,
    /// SHA-256 of the body of the answer, without padding.
    pub response: Digest,
    /// Digest of the model's manifest; one that the statement names.
    pub model: Digest,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer, of all choices together.
    pub completion_tokens: u64,
    /// Of the receipts of one boot, from 1: no two have the same.
    pub sequence: u64,
    /// Why the answer ended, in OpenAI's words; `error` if it failed on its way.
    pub finish_reason: String,
}

impl Receipt {
    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, cbor::text(VERSION)),
            (1, cbor::bytes(&self.statement.0)),
            (2, cbor::bytes(&self.request.0)),
            (3, cbor::bytes(&self.response.0)),
            (4, cbor::bytes(&self.model.0)),
            (5, cbor::uint(self.prompt_tokens)),
            (6, cbor::uint(self.completion_tokens)),
            (7, cbor::uint(self.sequence)),
            (8, cbor::text(&self.finish_reason)),
            (9, cbor::Value::Null),
        ]))
    }

    /// Reads a receipt.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical receipt. Price terms are not known to this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("receipt", bytes, MAX_LEN)?;
        fields.version(&cbor::text(VERSION))?;
        let receipt = Self {
            statement: Digest(fields.required(1)?.array()?),
            request: Digest(fields.required(2)?.array()?),
            response: Digest(fields.required(3)?.array()?),
            model: Digest(fields.required(4)?.array()?),
            prompt_tokens: fields.required(5)?.uint()?,
            completion_tokens: fields.required(6)?.uint()?,
            sequence: fields.required(7)?.uint()?,
            finish_reason: fields.required(8)?.text(MAX_FINISH_REASON)?,
        };
        if !fields.required(9)?.is_null() {
            return Err(Error::malformed("receipt", "price terms are not known to this version"));
        }
        fields.finish()?;
        Ok(receipt)
    }

    /// Whether it is for this request and this answer, by the SHA-256 of their bodies.
    ///
    /// # Errors
    /// [`ReceiptError::OtherRequest`], [`ReceiptError::OtherResponse`].
    pub fn is_for(&self, request: Digest, response: Digest) -> Result<(), ReceiptError> {
        if self.request != request {
            return Err(ReceiptError::OtherRequest);
        }
        if self.response != response {
            return Err(ReceiptError::OtherResponse);
        }
        Ok(())
    }
}

/// A receipt and its signature, as an answer ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The receipt as it was signed.
    pub receipt: Vec<u8>,
    /// Ed25519, by the receipt key of the statement, over label and receipt.
    pub signature: [u8; 64],
}

impl SignedReceipt {
    /// What is signed for a receipt.
    #[must_use]
    pub fn message(receipt: &[u8]) -> Vec<u8> {
        [LABEL.as_slice(), receipt].concat()
    }

    /// Deterministic CBOR: `{ 0: bstr receipt, 1: bstr64 signature }`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([(0, cbor::bytes(&self.receipt)), (1, cbor::bytes(&self.signature))]))
    }

    /// Reads a signed receipt. The signature is not looked at.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical map.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("signed receipt", bytes, MAX_LEN)?;
        let signed = Self { receipt: fields.required(0)?.bytes()?, signature: fields.required(1)?.array()? };
        fields.finish()?;
        Ok(signed)
    }

    /// The receipt, if the enclave of `statement` signed it in that epoch.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(&self, statement: &EpochStatement) -> Result<Receipt, ReceiptError> {
        let receipt = self.verify_signature(statement)?;
        if receipt.statement != Digest(sha256(&[&statement.encode()])) {
            return Err(ReceiptError::OtherEpoch);
        }
        if !statement.models.contains(&receipt.model) {
            return Err(ReceiptError::OtherModel);
        }
        Ok(receipt)
    }

    /// The receipt, if the enclave of `statement` signed it, in whatever epoch: the key lives as long as the enclave.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`], [`ReceiptError::Signature`].
    pub fn verify_signature(&self, statement: &EpochStatement) -> Result<Receipt, ReceiptError> {
        let message = Self::message(&self.receipt);
        if !SignatureScheme::Ed25519.verify(&statement.receipt_key, &message, &self.signature) {
            return Err(ReceiptError::Signature);
        }
        Ok(Receipt::decode(&self.receipt)?)
    }
}

/// A receipt with the statement that it belongs to: what is kept, and verified later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptBundle {
    /// The receipt.
    pub signed: SignedReceipt,
    /// S.
    pub statement: EpochStatement,
}

impl ReceiptBundle {
    /// Deterministic CBOR: `{ 0: "cocoon-receipt-bundle/1", 1: bstr receipt, 2: bstr64 signature, 3: bstr S }`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&cbor::map([
            (0, cbor::text(BUNDLE_VERSION)),
            (1, cbor::bytes(&self.signed.receipt)),
            (2, cbor::bytes(&self.signed.signature)),
            (3, cbor::bytes(&self.statement.encode())),
        ]))
    }

    /// Reads a bundle. The signature is not looked at.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical bundle.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::decode("receipt bundle", bytes, MAX_BUNDLE_LEN)?;
        fields.version(&cbor::text(BUNDLE_VERSION))?;
        let signed =
            SignedReceipt { receipt: fields.required(1)?.bytes()?, signature: fields.required(2)?.array()? };
        let statement = EpochStatement::decode(&fields.required(3)?.bytes()?)?;
        fields.finish()?;
        Ok(Self { signed, statement })
    }
}

/// Why a receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is no receipt.
    #[error(transparent)]
    Malformed(#[from] Error),
    /// Somebody else signed it, or it was altered.
    #[error("the receipt is not signed by the enclave of this statement")]
    Signature,
    /// It names another statement.
    #[error("the receipt is of another epoch, or of another enclave")]
    OtherEpoch,
    /// It names a model that the statement does not.
    #[error("the receipt names a model that the enclave does not state")]
    OtherModel,
    /// It is of another request.
    #[error("the receipt is of another request")]
    OtherRequest,
    /// The answer was cut, reordered or altered.
    #[error("the receipt is of another answer: what came was cut or altered")]
    OtherResponse,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::statement;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap()
    }

    fn stated() -> EpochStatement {
        let mut receipt_key = [0; 32];
        receipt_key.copy_from_slice(key().public_key().as_ref());
        EpochStatement { receipt_key, ..statement() }
    }

    fn receipt() -> Receipt {
        let statement = stated();
        Receipt {
            statement: Digest(sha256(&[&statement.encode()])),
            request: Digest([1; 32]),
            response: Digest([2; 32]),
            model: statement.models[0],
            prompt_tokens: 70_000,
            completion_tokens: 12,
            sequence: 3,
            finish_reason: "stop".to_owned(),
        }
    }

    fn signed(receipt: &Receipt) -> SignedReceipt {
        let receipt = receipt.encode();
        let mut signature = [0; 64];
        signature.copy_from_slice(key().sign(&SignedReceipt::message(&receipt)).as_ref());
        SignedReceipt { receipt, signature }
    }

    #[test]
    fn what_was_signed_is_verified() {
        let (receipt, statement) = (receipt(), stated());
        assert_eq!(signed(&receipt).verify(&statement), Ok(receipt.clone()));
        let bundle = ReceiptBundle { signed: signed(&receipt), statement };
        assert_eq!(ReceiptBundle::decode(&bundle.encode()).unwrap(), bundle);
        assert_eq!(SignedReceipt::decode(&bundle.signed.encode()).unwrap(), bundle.signed);
    }

    #[test]
    fn every_reason_to_refuse() {
        let (good, statement) = (receipt(), stated());
        let refused = |receipt: Receipt| signed(&receipt).verify(&statement).unwrap_err();
        assert_eq!(refused(Receipt { statement: Digest([0; 32]), ..good.clone() }), ReceiptError::OtherEpoch);
        assert_eq!(refused(Receipt { model: Digest([0; 32]), ..good.clone() }), ReceiptError::OtherModel);
        let other = EpochStatement { receipt_key: [7; 32], ..statement.clone() };
        assert_eq!(signed(&good).verify(&other), Err(ReceiptError::Signature));
        let long = Receipt { finish_reason: "x".repeat(33), ..good.clone() };
        assert!(matches!(refused(long), ReceiptError::Malformed(_)));
        // The same key signs nothing else that could be taken for a receipt.
        let receipt = good.encode();
        let mut signature = [0; 64];
        signature.copy_from_slice(key().sign(&receipt).as_ref());
        assert_eq!(SignedReceipt { receipt, signature }.verify(&statement), Err(ReceiptError::Signature));
    }

    /// A bit turned in the receipt, the request or the answer; bytes of the answer cut off, left out, doubled or exchanged.
    #[test]
    fn a_thousand_changes_are_all_seen() {
        let statement = stated();
        let request = br#"{"model": "m", "messages": [{"role": "user", "content": "hello"}]}"#.to_vec();
        let response: Vec<u8> =
            (0..60_u8).flat_map(|n| format!("data: {{\"n\": {n}}}\n\n").into_bytes()).collect();
        let of = |bytes: &[u8]| Digest(sha256(&[bytes]));
        let receipt = Receipt { request: of(&request), response: of(&response), ..receipt() };
        let good = [signed(&receipt).encode(), request, response];
        let verify = |[signed, request, response]: &[Vec<u8>; 3]| {
            let receipt = SignedReceipt::decode(signed)?.verify(&statement)?;
            receipt.is_for(of(request), of(response))
        };
        assert_eq!(verify(&good), Ok(()));
        let mut state = 1_u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % n
        };
        for round in 0..1000 {
            let mut parts = good.clone();
            let part = &mut parts[[0, 1, 2, 2][below(4)]];
            let (at, bit, by) = (below(part.len()), below(8), 1 + below(part.len() - 1));
            match below(6) {
                0 | 1 => part[at] ^= 1 << bit,
                2 => part.truncate(at),
                3 => drop(part.remove(at)),
                4 => part.insert(at, part[at]),
                _ => part.rotate_left(by),
            }
            assert!(parts == good || verify(&parts).is_err(), "round {round}");
        }
    }

    #[test]
    fn what_is_no_receipt_is_malformed() {
        let good = receipt().encode();
        for cut in 0..good.len() {
            assert!(Receipt::decode(&good[..cut]).is_err(), "{cut}");
        }
        assert!(Receipt::decode(&[good.clone(), vec![0]].concat()).is_err());
        let mut priced = good.clone();
        *priced.last_mut().unwrap() = 0x01;
        assert!(Receipt::decode(&priced).unwrap_err().to_string().contains("price terms"));
        assert!(ReceiptBundle::decode(&good).is_err() && SignedReceipt::decode(&good).is_err());
    }
}
