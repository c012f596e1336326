//! Intel TDX: TD quotes, and what Intel endorses about the platforms that made them.
//!
//! ```text
//! pinned root -- PCK issuer -- PCK --signs--> report of the quoting enclave --binds--> attestation key --signs--> TD report
//!      \-- TCB signing key --signs--> TCB info, QE identity: how good are the platform, its TDX module, its quoting enclave
//! ```
//!
//! [`Quote::parse`] reads, [`authenticate`] verifies signatures and chains and finds the TCB status, [`appraise`] applies a policy.
//! Quotes of versions 4 and 5, ECDSA P-256 only.
//!
//! Sources: Intel TDX DCAP, "Quote Generation Library and Quote Verification Library" (formats, verification); Intel TDX Module
//! ABI specification (what the fields mean); Intel SGX PCK Certificate and CRL Profile; Intel SGX and TDX Provisioning Certification
//! Service API v4.

mod appraise;
mod authenticate;
mod claims;
mod enclave;
mod endorsements;
mod event_log;
mod fitting;
mod pck;
mod quote;
mod tcb;
mod tcb_info;
#[cfg(test)]
pub(crate) mod tests;

pub use appraise::appraise;
pub use authenticate::{Authenticity, authenticate};
pub use claims::claims;
pub use enclave::EnclaveReport;
pub use endorsements::Endorsements;
pub use event_log::{Event, EventLog, config_event, expected_rtmr3, model_event, replay_rtmr, rtmr3_factor};
pub use pck::{Configuration, Pck, SgxType};
pub use quote::{Quote, Td15, TdReport};
pub use tcb::{Tcb, TcbStatus};
pub(crate) use tcb_info::{about_qe_identity, about_tcb_info};

use crate::Error;
use crate::x509::Certificate;

/// Intel SGX Root CA, which is the root of TDX too: the anchor for genuine platforms.
///
/// # Errors
/// None in practice: the certificate is built in.
pub fn intel_root() -> Result<Certificate, Error> {
    Certificate::from_der(include_bytes!("roots/sgx_root_ca.der"))
}
