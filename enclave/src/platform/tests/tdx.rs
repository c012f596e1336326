//! TDX over configfs-tsm.

use cocoon_attestation::tdx::Quote;
use cocoon_attestation::wire::TDX_QUOTE_MEDIA_TYPE;

use super::kernel::FakeKernel;
use super::{corpus, log};
use crate::attest::ReportData;
use crate::platform::{Attester, TdxAttester};

#[test]
fn a_genuine_quote() {
    for case in ["v4-b0c06f", "v5-90c06f"] {
        let Some(quote) = corpus(&format!("tdx/{case}/quote.bin")) else { return };
        let kernel = FakeKernel::new("tdx_guest", &quote, None);
        let (events, lines) = log();
        let attester = TdxAttester::tsm(kernel.tsm(), events);
        let evidence = attester.attest(&ReportData::for_test(3)).unwrap();
        assert_eq!((evidence.item.media_type.as_str(), &evidence.item.bytes), (TDX_QUOTE_MEDIA_TYPE, &quote));
        assert!(Quote::parse(&evidence.item.bytes).is_ok() && evidence.endorsements.is_empty());
        assert_eq!(lines(), "");
    }
}

#[test]
fn no_quote_says_why() {
    let kernel = FakeKernel::new("tdx_guest", &[], None);
    let (events, lines) = log();
    assert!(TdxAttester::tsm(kernel.tsm(), events.clone()).attest(&ReportData::for_test(3)).is_err());
    assert!(TdxAttester::device("/dev/null".into(), 4050, events).attest(&ReportData::for_test(3)).is_err());
    assert!(lines().contains("\"reason\":\"malformed\"") && lines().contains("\"errno\":25"), "{}", lines());
}
