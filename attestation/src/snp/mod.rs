//! AMD SEV-SNP: attestation reports and the keys that sign them.
//!
//! Sources: AMD 56860 (SEV-SNP Firmware ABI), AMD 57230 (VCEK Certificate and KDS Interface).

mod chain;
mod report;

pub use chain::{Chain, Product, Root};
pub use report::{REPORT_LEN, Report, TcbVersion};
