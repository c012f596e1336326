//! AttestRequest: what a client sends first.

use super::MAX_REQUEST_LEN;
use crate::cbor::{self, Field, Fields, Value};
use crate::{Digest, Error};

/// More digests than this do not fit into [`MAX_REQUEST_LEN`].
const MAX_HELD: usize = 112;

/// How fresh the evidence is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// 0: fresh CPU evidence; GPU evidence of the epoch.
    FreshCpu,
    /// 1: fresh CPU and fresh GPU evidence.
    FreshCpuAndGpu,
}

impl Mode {
    /// The byte on the wire and in the binding.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::FreshCpu => 0,
            Self::FreshCpuAndGpu => 1,
        }
    }
}

/// `{ 0: 1, 1: nonce bstr32, 2: mode uint, ? 3: node_id bstr32, ? 4: [+ bstr32] }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestRequest {
    /// Fresh random bytes of this client for this request.
    pub nonce: [u8; 32],
    /// How fresh the evidence is to be.
    pub mode: Mode,
    /// The node that the client wants; another node must not answer.
    pub node_id: Option<Digest>,
    /// Digests of endorsements that the client already has and need not be sent.
    pub held: Vec<Digest>,
}

impl AttestRequest {
    /// A request for fresh CPU evidence from any node.
    #[must_use]
    pub fn new(nonce: [u8; 32]) -> Self {
        Self { nonce, mode: Mode::FreshCpu, node_id: None, held: Vec::new() }
    }

    /// Deterministic CBOR.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut fields =
            vec![(0, cbor::uint(1)), (1, cbor::bytes(&self.nonce)), (2, cbor::uint(self.mode.code().into()))];
        fields.extend(self.node_id.map(|id| (3, cbor::bytes(&id.0))));
        if !self.held.is_empty() {
            fields.push((4, Value::Array(self.held.iter().map(|digest| cbor::bytes(&digest.0)).collect())));
        }
        cbor::encode(&cbor::map(fields))
    }

    /// Reads a request.
    ///
    /// # Errors
    /// `Malformed` for anything that is not exactly one canonical request of at most 4 KiB with a known mode.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "AttestRequest";
        let mut fields = Fields::decode(what, bytes, MAX_REQUEST_LEN)?;
        fields.version(&cbor::uint(1))?;
        let nonce = fields.required(1)?.array()?;
        let mode = match fields.required(2)?.uint()? {
            0 => Mode::FreshCpu,
            1 => Mode::FreshCpuAndGpu,
            other => return Err(Error::malformed(what, format!("mode {other} is unknown"))),
        };
        let node_id = fields.optional(3).map(|field| field.array().map(Digest)).transpose()?;
        let held = fields.optional(4).map(held).transpose()?.unwrap_or_default();
        fields.finish()?;
        Ok(Self { nonce, mode, node_id, held })
    }
}

fn held(field: Field) -> Result<Vec<Digest>, Error> {
    field.not_empty()?.items(MAX_HELD)?.into_iter().map(|item| item.array().map(Digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let full = AttestRequest {
            nonce: [7; 32],
            mode: Mode::FreshCpuAndGpu,
            node_id: Some(Digest([1; 32])),
            held: vec![Digest([2; 32]); MAX_HELD],
        };
        for request in [AttestRequest::new([9; 32]), full] {
            assert_eq!(AttestRequest::decode(&request.encode()).unwrap(), request);
        }
    }

    #[test]
    fn refuses_wrong_versions_modes_and_fields() {
        let nonce = (1, cbor::bytes(&[0; 32]));
        let mode = (2, cbor::uint(0));
        let refused = |fields: Vec<(u8, Value)>| {
            AttestRequest::decode(&cbor::encode(&cbor::map(fields))).unwrap_err().to_string()
        };
        assert!(refused(vec![(0, cbor::uint(2)), nonce.clone(), mode.clone()]).contains("unknown version"));
        assert!(refused(vec![(0, cbor::uint(1)), nonce.clone(), (2, cbor::uint(2))]).contains("mode 2"));
        assert!(
            refused(vec![(0, cbor::uint(1)), (1, cbor::bytes(&[0; 31])), mode.clone()]).contains("32 bytes")
        );
        assert!(refused(vec![(0, cbor::uint(1)), mode.clone()]).contains("field 1 is missing"));
        assert!(
            refused(vec![(0, cbor::uint(1)), nonce, mode, (5, cbor::uint(0))]).contains("1 unknown fields")
        );
    }

    #[test]
    fn refuses_a_second_way_to_hold_nothing() {
        let fields = vec![
            (0, cbor::uint(1)),
            (1, cbor::bytes(&[0; 32])),
            (2, cbor::uint(0)),
            (4, Value::Array(Vec::new())),
        ];
        let refused = AttestRequest::decode(&cbor::encode(&cbor::map(fields))).unwrap_err().to_string();
        assert!(refused.contains("field 4: empty; leave the field out"), "{refused}");
    }

    #[test]
    fn size_limit() {
        assert!(
            AttestRequest::decode(&vec![0; MAX_REQUEST_LEN + 1]).unwrap_err().to_string().contains("at most")
        );
    }
}
