//! What plans refuse: any size that does not fit.

use super::launch::{BLOCK, Kind, Launch, Parameter};
use super::plan::*;
use crate::backend::Activation;
use crate::error::Error;

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 64, blocks: 3 };
const SCORES: Scores = Scores { scale: 1.0, cap: 0.0, window: 0 };
const CACHE: usize = 3 * 2 * BLOCK * 64;
const NORM: Norm = Norm { rows: 2, stride: 10, start: 2, groups: 2, width: 4, eps: 1e-5, offset: 0.0 };

/// Whether a plan takes its sizes, and none of them changed by one.
fn exact<const N: usize>(sizes: [usize; N], plan: impl Fn([usize; N]) -> Result<Launch, Error>) {
    assert!(plan(sizes).is_ok());
    for i in 0..N {
        for change in [-1, 1] {
            let mut changed = sizes;
            changed[i] = changed[i].wrapping_add_signed(change);
            assert!(plan(changed).is_err(), "size {i} of {sizes:?} changed by {change}");
        }
    }
}

#[test]
fn every_size_has_to_fit() {
    exact([20, 20, 4], |sizes| rms_norm(sizes, &NORM));
    exact([20, 20, 20, 10], |sizes| add_rms_norm(sizes, 2, 1e-5, 0.0));
    exact([20, 20], add);
    exact([20, 10], |sizes| add_bias(sizes, 2));
    exact([20, 40], |sizes| gated(Activation::Silu, sizes, 2, 10));
    exact([20, 70, 2], |sizes| embed(sizes, 10, 1.0));
    exact([20, 70, 2], |sizes| gather_rows(sizes, 10));
    let rope = Rope { rotary: 64, interleaved: false };
    exact([2 * 512, CACHE, CACHE, 640, 2, 2], |sizes| rope_kv(sizes, &HEADS, &rope));
    let partial = 2 * 4 * 3 * 66; // 300 tokens of context in three splits
    exact([partial, 2 * 512, CACHE, CACHE, 40, 2], |sizes| attention_decode(sizes, &HEADS, &SCORES, 300));
    exact([2 * 256, partial], |sizes| attention_combine(sizes, &HEADS, 2, 300));
    exact([5 * 256, 5 * 512, CACHE, CACHE, 40, 8], |sizes| attention_prefill(sizes, &HEADS, &SCORES, 5, 2));
    exact([40, 40, 200], |sizes| top_k(sizes, 2, 20));
    exact([3, 201], argmax);
    exact([2, 2, 2, 10], advance);
    assert!(wipe_blocks([CACHE, 7], &HEADS).is_ok());
    for len in [CACHE - 1, CACHE + 1] {
        assert!(wipe_blocks([len, 7], &HEADS).is_err());
    }
}

const READ: Parameter = Parameter { kind: Kind::Half, is_written: false };
const WRITTEN: Parameter = Parameter { kind: Kind::Half, is_written: true };

#[test]
fn products_have_to_fit() {
    let fit = |sizes: [usize; 3], shape| {
        gemm([(sizes[0], WRITTEN), (sizes[1], READ), (sizes[2], READ)], shape).is_ok()
    };
    assert!(fit([6, 8, 12], [2, 4, 3]));
    for sizes in [[5, 8, 12], [7, 8, 12], [6, 7, 12], [6, 9, 12], [6, 8, 11], [6, 8, 13]] {
        assert!(!fit(sizes, [2, 4, 3]), "{sizes:?}");
    }
    let most = i32::MAX as usize;
    assert!(fit([most, most, 1], [most, 1, 1]));
    assert!(!fit([most + 1, most + 1, 1], [most + 1, 1, 1]));
    assert!(!fit([0, 0, 12], [0, 4, 3]) && !fit([6, 0, 0], [2, 0, 3]));
    assert!(!fit([1, 1, 1], [usize::MAX, 2, 1]));
}

#[test]
fn products_are_of_halves() {
    let of = |out, x, weights| gemm([(6, out), (8, x), (12, weights)], [2, 4, 3]).ok();
    let kind = |kind, like| Parameter { kind, ..like };
    assert_eq!(of(WRITTEN, READ, READ), Some(Kind::Half));
    assert_eq!(of(kind(Kind::Float, WRITTEN), READ, READ), Some(Kind::Float));
    assert_eq!(of(kind(Kind::Word, WRITTEN), READ, READ), None);
    assert_eq!(of(READ, READ, READ), None, "nothing is written");
    assert_eq!(of(WRITTEN, kind(Kind::Float, READ), READ), None);
    assert_eq!(of(WRITTEN, READ, kind(Kind::Word, READ)), None);
}

#[test]
fn a_launch_takes_the_buffers_that_it_was_planned_for() {
    let launch = add([20, 20]).unwrap();
    assert!(launch.check(&[(20, WRITTEN), (20, READ)]).is_ok());
    for other in [
        &[(20, WRITTEN)][..],
        &[(20, WRITTEN), (20, READ), (20, READ)],
        &[(20, WRITTEN), (19, READ)],
        &[(20, READ), (20, READ)],
        &[(20, WRITTEN), (20, Parameter { kind: Kind::Float, ..READ })],
    ] {
        assert!(launch.check(other).is_err(), "{other:?}");
    }
}

#[test]
fn shapes_without_sense_are_refused() {
    assert!(rms_norm([20, 20, 4], &Norm { groups: 3, ..NORM }).is_err());
    assert!(rms_norm([20, 20, 4], &Norm { start: 3, ..NORM }).is_err());
    assert!(rms_norm([20, 20, 4], &Norm { start: usize::MAX, ..NORM }).is_err());
    assert!(rms_norm([0, 0, 4], &Norm { rows: 0, ..NORM }).is_err());
    assert!(softcap(0, 1.0).is_err() && softcap(1, 1.0).is_ok());
    assert!(softcap(1 << 31, 1.0).is_err() && softcap((1 << 31) - 1, 1.0).is_ok());
    for rotary in [3, 66] {
        let rope = Rope { rotary, interleaved: false };
        assert!(rope_kv([512, CACHE, CACHE, rotary, 1, 1], &HEADS, &rope).is_err(), "{rotary}");
    }
    let partial = |heads: &Heads| partial_len(heads, 1, 16).unwrap();
    for (query, kv, dim) in [(5, 2, 64), (0, 2, 64), (4, 0, 64), (64, 1, 256)] {
        let heads = Heads { query, kv, dim, blocks: 3 };
        let cache = 3 * kv * BLOCK * dim;
        let sizes = [partial(&heads), heads.row(), cache, cache, 1, 1];
        assert!(attention_decode(sizes, &heads, &SCORES, 16).is_err(), "{query} {kv}");
    }
    let heads = Heads { dim: 80, ..HEADS };
    let cache = 3 * 2 * BLOCK * 80;
    assert!(attention_prefill([320, 640, cache, cache, 1, 4], &heads, &SCORES, 1, 1).is_err(), "heads of 80");
    for k in [0, 129] {
        assert!(top_k([k, k, 200], 1, k).is_err());
    }
    assert!(top_k([128, 128, 200], 1, 128).is_ok());
    assert!(argmax([70_000, 70_000]).is_ok(), "rows are the first dimension");
    assert!(attention_combine([0, 0], &HEADS, 0, 300).is_err());
    assert!(partial_len(&HEADS, usize::MAX, 300).is_err());
}

#[test]
fn runs_are_cut_into_tiles_of_rows_that_are_there() {
    let run = Run { sequence: 1, first_row: 2, rows: 130, position: 7 };
    assert_eq!(tiles(&[run], 132, 2).unwrap(), [1, 2, 64, 7, 1, 66, 64, 71, 1, 130, 2, 135]);
    assert!(tiles(&[run], 131, 2).is_err() && tiles(&[run], 132, 1).is_err());
    assert!(tiles(&[Run { position: u32::MAX, ..run }], 132, 2).is_err());
    assert!(tiles(&[Run { first_row: u32::MAX, ..run }], 132, 2).is_err());
    assert!(tiles(&[Run { rows: 0, ..run }], 132, 2).unwrap().is_empty());
}
