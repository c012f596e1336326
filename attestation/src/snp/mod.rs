//! AMD SEV-SNP: attestation reports and the keys that sign them.
//!
//! Sources: AMD 56860 (SEV-SNP Firmware ABI), AMD 57230 (VCEK Certificate and KDS Interface).

mod appraise;
mod authenticate;
mod chain;
mod claims;
mod product;
mod report;
mod tcb;

pub use appraise::appraise;
pub use authenticate::{Authenticity, authenticate};
pub(crate) use chain::vcek_parts;
pub use chain::{Endorsements, Root};
pub use claims::claims;
pub use product::Product;
pub use report::{REPORT_LEN, Report, SigningKey};
pub use tcb::{TcbParts, TcbVersion};
