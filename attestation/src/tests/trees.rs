//! DER: every node of the tree removed, doubled, emptied, cut, and of another tag, with the lengths around it mended.

use crate::nvidia::OcspResponse;
use crate::nvidia::tests::factory::{
    COMPOSITE_DEVICE_ID, DICE_TCB_INFO, Factory, Ocsp, composite_device_id, dice_tcb_info, extension, time,
    tlv,
};
use crate::nvidia::tests::has_identity;
use crate::tdx::tests::factory::Case;
use crate::tdx::tests::is_pck;
use crate::x509::{Certificate, RevocationList};
use crate::{EndorsementKind, SignatureCache};

/// A node: its tag, and its content or children.
#[derive(Clone)]
enum Node {
    Leaf(u8, Vec<u8>),
    Branch(u8, Vec<Node>),
}

/// All of `bytes` as nodes, if they are DER.
fn parse(mut bytes: &[u8]) -> Option<Vec<Node>> {
    let mut out = Vec::new();
    while let [tag, rest @ ..] = bytes {
        let (len, rest) = match rest {
            [len @ 0..=0x7f, rest @ ..] => (usize::from(*len), rest),
            [0x81, len @ 0x80..=0xff, rest @ ..] => (usize::from(*len), rest),
            [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        // A constructed tag, or a string with a structure in it.
        let children = match tag {
            0x30 | 0x31 | 0xa0..=0xbf => parse(content),
            0x04 if content.first() == Some(&0x30) => parse(content),
            _ => None,
        };
        out.push(children.map_or_else(|| Node::Leaf(*tag, content.to_vec()), |all| Node::Branch(*tag, all)));
        bytes = after;
    }
    Some(out)
}

fn write(nodes: &[Node]) -> Vec<u8> {
    let one = |node: &Node| match node {
        Node::Leaf(tag, content) => tlv(*tag, content),
        Node::Branch(tag, children) => tlv(*tag, &write(children)),
    };
    nodes.iter().flat_map(one).collect()
}

fn variants(node: &Node) -> Vec<Vec<Node>> {
    let (tag, content) = match node {
        Node::Leaf(tag, content) => (*tag, content.clone()),
        Node::Branch(tag, children) => (*tag, write(children)),
    };
    let mut out = vec![Vec::new(), vec![node.clone(); 2], vec![Node::Leaf(tag, Vec::new())]];
    for other in [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0a, 0x18, 0x30, 0x80, 0xa0, 0xa1] {
        if other != tag {
            out.push(vec![Node::Leaf(other, content.clone())]);
        }
    }
    out.push(vec![Node::Leaf(tag, [&content[..], &[0]].concat())]);
    if let Some(((_, rest), (last, head))) = content.split_first().zip(content.split_last()) {
        out.push(vec![Node::Leaf(tag, rest.to_vec())]);
        out.push(vec![Node::Leaf(tag, head.to_vec())]);
        out.push(vec![Node::Leaf(tag, [head, &[last ^ 0xff]].concat())]);
    }
    out
}

fn changed(nodes: &[Node]) -> Vec<Vec<Node>> {
    let mut out = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let with = |put: &[Node]| [&nodes[..at], put, &nodes[at + 1..]].concat();
        out.extend(variants(node).iter().map(|new| with(new)));
        if let Node::Branch(tag, children) = node {
            out.extend(changed(children).into_iter().map(|new| with(&[Node::Branch(*tag, new)])));
        }
    }
    out
}

/// Every change of one node of `der`.
fn changes(der: &[u8]) -> Vec<Vec<u8>> {
    let tree = parse(der).unwrap();
    assert_eq!(write(&tree), der);
    let out: Vec<_> = changed(&tree).iter().map(|nodes| write(nodes)).filter(|new| new != der).collect();
    assert!(out.len() > 100, "{}", out.len());
    out
}

#[test]
fn no_changed_certificate_is_issued() {
    let (factory, signatures) = (Factory::new(), SignatureCache::new());
    let (leaf, issuer) = (&factory.leaf.certificate, &factory.boot_rom.certificate);
    assert!(leaf.is_issued_by(issuer, &signatures));
    for change in changes(leaf.der()) {
        let accepted =
            Certificate::from_der(&change).is_ok_and(|read| read.is_issued_by(issuer, &signatures));
        assert!(!accepted, "{}", hex::encode(change));
    }
}

#[test]
fn no_changed_revocation_list_is_issued() {
    let (case, signatures) = (Case::new(5), SignatureCache::new());
    let issuer = Certificate::from_der(&case.issuer_der()).unwrap();
    let list = case.endorsements().into_iter().find(|e| e.kind == EndorsementKind::IntelPckCrl).unwrap();
    let read = |der: &[u8]| RevocationList::from_pem_or_der(der);
    assert!(read(&list.bytes).unwrap().is_issued_by(&issuer, &signatures));
    for change in changes(&list.bytes) {
        let accepted = read(&change).is_ok_and(|list| list.is_issued_by(&issuer, &signatures));
        assert!(!accepted, "{}", hex::encode(change));
    }
}

#[test]
fn changed_ocsp_responses() {
    let factory = Factory::new();
    let mut responses = vec![Ocsp::good(&factory.boot_rom, &factory.identity)];
    let revoked = [time("20260203000000Z"), tlv(0xa0, &[0x0a, 1, 1])].concat();
    responses.push(Ocsp::good(&factory.boot_rom, &factory.identity).with(|o| o.status = tlv(0xa1, &revoked)));
    let plain = tlv(
        0xa1,
        &tlv(0x30, &tlv(0x30, &[&[6, 3, 0x55, 0x1d, 0x23, 1, 1, 0], tlv(4, &[5, 0]).as_slice()].concat())),
    );
    responses.push(Ocsp::good(&factory.boot_rom, &factory.identity).with(|o| {
        (o.extensions, o.single_extensions) = (plain.clone(), plain.clone());
    }));
    for response in responses {
        let signed = response.signed(&factory.identity, &[&factory.identity]);
        let mut refused = 0;
        for change in changes(&signed) {
            refused += usize::from(OcspResponse::parse(&change).is_err());
        }
        assert!(refused > 300, "{refused}");
    }
}

/// The extensions are inside of a signature; here the vendor itself signs nonsense.
#[test]
fn extensions_of_devices() {
    let mut factory = Factory::new();
    let point = factory.boot_rom.point();
    for (oid, genuine) in
        [(COMPOSITE_DEVICE_ID, composite_device_id(&point)), (DICE_TCB_INFO, dice_tcb_info([0; 4]))]
    {
        // What stays readable says something else: another digest or key, or without the fields that are not used.
        let (changes, mut identities) = (changes(&genuine), 0);
        let all = changes.len();
        for change in changes {
            factory.leaf_with(|params| params.custom_extensions = vec![extension(oid, change)]);
            identities += usize::from(has_identity(&factory.leaf.certificate));
        }
        assert!(identities * 2 < all, "{identities} of {all}");
    }
}

#[test]
fn extensions_of_platforms() {
    let case = Case::new(5);
    let [pck, ..] = <[Vec<u8>; 3]>::try_from(case.pck_chain()).unwrap();
    let mut refused = 0;
    for change in changes(&pck) {
        refused += usize::from(Certificate::from_der(&change).is_ok_and(|certificate| !is_pck(certificate)));
    }
    assert!(refused > 100, "{refused}");
}
