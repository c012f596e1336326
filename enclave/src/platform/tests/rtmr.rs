//! RTMR3.

use std::sync::Arc;

use cocoon_attestation::Digest;
use cocoon_attestation::tdx::expected_rtmr3;

use super::kernel::FakeKernel;
use crate::node::Claims;
use crate::platform::rtmr::{Extended, RtmrError, extend};

fn claims() -> Claims {
    Claims {
        models: vec![Digest([1; 32]), Digest([2; 32])],
        config: Digest([3; 32]),
        release: Digest([0; 32]),
    }
}

fn run(kernel: &Arc<FakeKernel>) -> Result<Extended, RtmrError> {
    extend(&*kernel.files(), kernel.root(), &claims())
}

#[test]
fn configuration_and_models_are_measured_in_the_order_of_the_statement() {
    let kernel = FakeKernel::bare();
    kernel.set_rtmr3(&[0; 48]);
    assert_eq!(run(&kernel).unwrap(), Extended::Yes);
    let claims = claims();
    assert_eq!(kernel.rtmr3(), expected_rtmr3(&claims.config, &claims.models));
    assert_eq!(kernel.written().len(), 3);
    // A process that is started again finds what it needs, and extends nothing.
    assert_eq!(run(&kernel).unwrap(), Extended::Yes);
    assert_eq!(kernel.written().len(), 3);
}

#[test]
fn without_the_file_the_enclave_goes_on() {
    assert_eq!(run(&FakeKernel::bare()).unwrap(), Extended::Unavailable);
}

#[test]
fn a_register_that_says_something_else_is_refused() {
    let kernel = FakeKernel::bare();
    kernel.set_rtmr3(&[9; 48]);
    assert!(run(&kernel).unwrap_err().to_string().contains("was extended before"));
    assert_eq!(kernel.written(), [], "nothing is written on top");
    for len in [0, 47, 49] {
        kernel.set_rtmr3(&vec![0; len]);
        assert!(run(&kernel).unwrap_err().to_string().contains("not 48"), "{len}");
    }
    kernel.set_rtmr3(&[0; 48]);
    kernel.change(|b| b.write = Some(("rtmr3:sha384", 13)));
    let error = run(&kernel).unwrap_err().to_string();
    assert!(error.contains("cannot be extended") && error.contains("Permission denied"), "{error}");
    kernel.change(|b| (b.write, b.wrong_registers) = (None, true));
    assert!(run(&kernel).unwrap_err().to_string().contains("is not what it was extended to"));
}
