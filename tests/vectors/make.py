#!/usr/bin/env python3
"""Writes the test vectors of cocoon/1 from an implementation of its own: Python's hashlib and hmac, and the few lines of CBOR below.

The Rust code never wrote these files; it must agree with them. `make.py` writes, `make.py --check` compares.
"""

import base64
import hashlib
import hmac
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def h256(data):
    return hashlib.sha256(data).digest()


def h512(data):
    return hashlib.sha512(data).digest()


def label(text):
    return text.encode().ljust(32, b"\0")


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << (8 * size):
            return bytes([major << 5 | code]) + n.to_bytes(size, "big")
    raise ValueError(n)


def cbor(value):
    """RFC 8949 section 4.2.1: shortest heads, definite lengths, map keys sorted by their encoding."""
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    entries = sorted((cbor(key), cbor(item)) for key, item in value.items())
    return head(5, len(entries)) + b"".join(key + item for key, item in entries)


def leaf_hash(data):
    return h256(b"\0" + data)


def node_hash(left, right):
    return h256(b"\1" + left + right)


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def path(leaves, index):
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if index < k:
        return path(leaves[:k], index) + [root(leaves[k:])]
    return path(leaves[k:], index - k) + [root(leaves[:k])]


def block(**fields):
    shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
    return "".join(f"{key} = {value}\n" for key, value in shown.items())


def file(comment, blocks):
    lines = "".join(f"# {line}\n" if line else "#\n" for line in comment.strip().split("\n"))
    return lines + "\n" + "\n".join(blocks)


NONCE = bytes(range(32))
REQUESTS = {
    "minimal": {0: 1, 1: NONCE, 2: 0},
    "fresh GPU evidence": {0: 1, 1: NONCE, 2: 1},
    "node and held endorsements": {0: 1, 1: NONCE, 2: 0, 3: b"\x33" * 32, 4: [b"\x44" * 32, b"\x55" * 32]},
}
STATEMENT = {
    0: "cocoon-epoch/1", 1: b"\x01" * 16, 2: 7, 3: 1800000000, 4: 1800003600, 5: b"\x05" * 32, 6: b"\x06" * 32,
    7: b"\x07" * 32, 8: None, 9: [], 10: "none", 11: [b"\x0b" * 32], 12: b"\x0c" * 32, 13: b"\x00" * 32,
    14: {0: 0, 1: 0, 2: 0},
}
EVIDENCE = {"cpu": ["application/vnd.cocoon.snp-report", b"report", 4]}
ENDORSEMENT = cbor([1, b"certificate"])
RESPONSE = {
    0: 1, 1: cbor(STATEMENT), 2: cbor(EVIDENCE), 3: [1, 3, [b"\xaa" * 32, b"\xbb" * 32]], 4: {h256(ENDORSEMENT): ENDORSEMENT},
}


def binding():
    blocks = []
    exported = b"\xee" * 32
    for name, fields in REQUESTS.items():
        request = cbor(fields)
        for role, suite, group, peer in ((1, 0x1302, 0x11EC, None), (1, 0x1303, 0x001D, None), (2, 0x1302, 0x11EC, b"\x66" * 32)):
            data = (label("cocoon/attest/leaf/v1") + bytes([role]) + suite.to_bytes(2, "big") + group.to_bytes(2, "big")
                    + b"\x06" * 32 + exported + h256(request) + (peer or b"\0" * 32))
            assert len(data) == 165
            leaf = leaf_hash(data)
            top = root([leaf, b"\x99" * 32, b"\x98" * 32])
            signed = (label("cocoon/attest/report-data/v1") + bytes([fields[2]]) + h256(cbor(STATEMENT)) + top
                      + (3).to_bytes(4, "big"))
            assert len(signed) == 101
            blocks.append(block(
                name=f"{name}, role {role}, suite {suite:04x}, group {group:04x}", request=request, role=role, cipher_suite=suite,
                named_group=group, spki_sha256=b"\x06" * 32, peer_spki_sha256=peer or "-", exported=exported, reqhash=h256(request),
                exporter_context=bytes([role]) + h256(request), leaf_data=data, leaf=leaf, statement=cbor(STATEMENT),
                other_leaves="99" * 32 + " " + "98" * 32, root=top, size=3, report_data=h512(signed)))
    nonce = h256(label("cocoon/attest/gpu-nonce/v1") + b"\x01" * 16 + (7).to_bytes(8, "big") + b"\x06" * 32 + b"\x77" * 32)
    blocks.append(block(name="GPU nonce", boot_id=b"\x01" * 16, epoch=7, spki_sha256=b"\x06" * 32, x=b"\x77" * 32, gpu_nonce=nonce))
    return file("""From an AttestRequest and a TLS session to REPORT_DATA. The client is at index 0 of a tree of three leaves.
TLS exporter: label "EXPERIMENTAL cocoon attest v1", context = exporter_context, 32 bytes = exported; here it is made up, and
exporter.txt has genuine ones. Role 1: the enclave attests; role 2: the client, whose peer has a certificate too.
Byte strings are hex, numbers decimal.""", blocks)


def merkle_block(verdict, name, size, index, leaf, way, top):
    return block(verdict=verdict, name=name, size=size, index=index, leaf=leaf, path=" ".join(p.hex() for p in way) or "-", root=top)


def merkle():
    blocks = []
    for n in (1, 2, 3, 4, 5, 7, 8, 13):
        leaves = [h256(bytes([i])) for i in range(n)]
        for i in sorted({0, n // 2, n - 1}):
            blocks.append(merkle_block("valid", f"leaf {i} of {n}", n, i, leaves[i], path(leaves, i), root(leaves)))
    leaves = [h256(bytes([i])) for i in range(7)]
    good, top, node = path(leaves, 2), root(leaves), b"\x99" * 32
    for name, size, index, way in (
        ("one node too few", 7, 2, good[:-1]),
        ("no path in a tree of several", 7, 2, []),
        ("one node too many", 7, 2, good + [node]),
        ("a node in a tree of one", 1, 0, [node]),
        ("the last leaf of five has a path of one node, not of three", 5, 4, good),
        ("index is size", 7, 7, good),
        ("index above size", 7, 2**64 - 1, good),
        ("empty tree", 0, 0, []),
    ):
        blocks.append(merkle_block("no root", name, size, index, leaves[2], way, top))
    for name, size, index, way in (
        ("another index", 7, 3, good),
        ("another index in a larger tree", 8, 5, good),
        ("nodes in another order", 7, 2, good[::-1]),
        ("another node", 7, 2, good[:-1] + [node]),
        ("leaf in the place of an inner node", 4, 2, good[:2]),
    ):
        blocks.append(merkle_block("another root", name, size, index, leaves[2], way, top))
    return file("""Trees over the leaves H256(00), H256(01), .. (as leaf hashes), as RFC 9162 section 2.1: node = H256(01 || left || right).
path: sibling hashes from the leaf to the root, or - if there are none. verdict: "valid", path leads from leaf to root; "no root", path
has not the length that this place in a tree of this size demands, or there is no such place; "another root", it leads elsewhere.""", blocks)


RELEASE = {
    0: "cocoon-release/1", 1: "1.0.0", 2: "git:0123456789abcdef", 3: 1800000000,
    4: {"vmlinuz": [7, b"\x07" * 32], "snp/OVMF.amdsev.fd": [9, b"\x09" * 32]}, 5: b"\x08" * 32,
    6: [[2, "EPYC-v4", None, b"\x01" * 48], [4, "EPYC-v4", 0x30000, b"\x02" * 48]],
    7: [[b"\x02" * 48, b"\x03" * 48, b"\x04" * 48, [[4, 4096, b"\x05" * 48]]], [b"\x06" * 48, b"\x03" * 48, b"\x04" * 48, []]],
    8: [b"\x09" * 32],
    9: [["crate", "ring", "0.17.14", b"\x06" * 32], ["deb", "ovmf", "2025.02-8", None]],
}
CHECKPOINT = "log.example/releases\n2\n" + base64.b64encode(b"\x03" * 32).decode() + "\n"
LOG_KEY, SIGNER_KEYS, SIGNATURE = b"\x21" * 32, [b"\x11" * 32, b"\x12" * 32], b"\x02" * 64


def key_id(name, kind, key):
    """C2SP signed-note."""
    return h256(name.encode() + b"\n" + bytes([kind]) + key)[:4]


def note_line(name, kind, key, signature):
    return f"\u2014 {name} {base64.b64encode(key_id(name, kind, key) + signature).decode()}\n"


def note():
    time = (1800000000).to_bytes(8, "big")
    return (CHECKPOINT + "\n" + note_line("log.example/releases", 1, LOG_KEY, SIGNATURE)
            + note_line("log.example/releases", 4, LOG_KEY, time + SIGNATURE))


def release_bundle():
    signatures = [[key, SIGNATURE] for key in SIGNER_KEYS]
    return {0: "cocoon-release-bundle/1", 1: cbor(RELEASE), 2: signatures, 3: [1, [b"\x05" * 32], note()],
            4: [[b"\x31" * 32, 1800000000, SIGNATURE]]}


def release():
    manifest = cbor(RELEASE)
    digest = h256(manifest)
    entry = f"cocoon-release/1\n1.0.0\n{digest.hex()}\n".encode()
    return file("""A release: digest of its manifest, what signers and those who rebuild it sign, its entry in a log and the leaf of that. A
checkpoint: ids of the log's key for both kinds of signature, and what is cosigned at a time. Texts are in hex, as UTF-8.""", [
        block(name="manifest", encoded=manifest, digest=digest, signed=label("cocoon/release/v1") + digest, time=1800000000,
              rebuilt=label("cocoon/rebuild/v1") + digest + (1800000000).to_bytes(8, "big"), entry=entry, leaf=leaf_hash(entry)),
        block(name="checkpoint", text=CHECKPOINT.encode(), key=LOG_KEY, id_ed25519=key_id("log.example/releases", 1, LOG_KEY),
              id_cosignature=key_id("log.example/releases", 4, LOG_KEY), time=1800000000,
              cosigned=b"cosignature/v1\ntime 1800000000\n" + CHECKPOINT.encode(), note=note().encode()),
    ])


def messages():
    good = [("AttestRequest", name, cbor(fields)) for name, fields in REQUESTS.items()]
    gpu = {**STATEMENT, 8: b"\x08" * 32, 9: [b"\x09" * 16], 10: "on"}
    good += [
        ("EpochStatement", "without GPU", cbor(STATEMENT)), ("EpochStatement", "with GPU", cbor(gpu)),
        ("EvidenceSet", "CPU", cbor(EVIDENCE)),
        ("EvidenceSet", "CPU and two GPUs", cbor({**EVIDENCE, "gpu0": ["a/b", b"", 4], "gpu1": ["a/b", b"", 4]})),
        ("AttestResponse", "with an endorsement", cbor(RESPONSE)),
        ("AttestResponse", "with a release", cbor({**RESPONSE, 5: b"manifest"})),
        ("ReleaseManifest", "all fields", cbor(RELEASE)),
        ("ReleaseManifest", "without what may be left out", cbor({key: RELEASE[key] for key in range(6)})),
        ("ReleaseBundle", "all fields", cbor(release_bundle())),
        ("ReleaseBundle", "a manifest alone", cbor({key: release_bundle()[key] for key in range(2)})),
    ]
    request, statement = REQUESTS["minimal"], STATEMENT
    nonce = b"\x01\x58\x20" + NONCE
    bad = [
        ("AttestRequest", "empty", b""),
        ("AttestRequest", "truncated", cbor(request)[:-1]),
        ("AttestRequest", "trailing byte", cbor(request) + b"\0"),
        ("AttestRequest", "integer not in its shortest form", b"\xa3\x18\x00\x01" + nonce + b"\x02\x00"),
        ("AttestRequest", "indefinite length", b"\xbf\x00\x01" + nonce + b"\x02\x00\xff"),
        ("AttestRequest", "keys not sorted", b"\xa3\x00\x01\x02\x00" + nonce),
        ("AttestRequest", "duplicate key", b"\xa4\x00\x01\x00\x01" + nonce + b"\x02\x00"),
        ("AttestRequest", "tag", b"\xc1" + cbor(request)),
        ("AttestRequest", "float", b"\xa3\x00\x01" + nonce + b"\x02\xf9\x00\x00"),
        ("AttestRequest", "not a map", cbor([1, NONCE, 0])),
        ("AttestRequest", "version 2", cbor({**request, 0: 2})),
        ("AttestRequest", "nonce of 31 bytes", cbor({**request, 1: NONCE[:31]})),
        ("AttestRequest", "no nonce", cbor({0: 1, 2: 0})),
        ("AttestRequest", "mode 2", cbor({**request, 2: 2})),
        ("AttestRequest", "unknown field", cbor({**request, 5: 0})),
        ("AttestRequest", "more than 4 KiB", cbor({**request, 4: [b"\0" * 32] * 121})),
        ("AttestRequest", "an empty list of held endorsements", cbor({**request, 4: []})),
        ("EpochStatement", "another type", cbor({**statement, 0: "cocoon-epoch/2"})),
        ("EpochStatement", "longer than an hour", cbor({**statement, 4: statement[3] + 3601})),
        ("EpochStatement", "ends before it begins", cbor({**statement, 4: statement[3] - 1})),
        ("EpochStatement", "no model", cbor({**statement, 11: []})),
        ("EpochStatement", "GPU evidence without a GPU", cbor({**statement, 8: b"\x08" * 32})),
        ("EpochStatement", "unknown privacy flag", cbor({**statement, 14: {0: 0, 1: 0, 2: 0, 3: 0}})),
        ("EpochStatement", "missing privacy flag", cbor({**statement, 14: {0: 0, 1: 0}})),
        ("EpochStatement", "nested deeper than 6", cbor({**statement, 9: [[[[[[0]]]]]]})),
        ("EpochStatement", "unknown field", cbor({**statement, 15: 0})),
        ("EvidenceSet", "nested deeper than 6", cbor({"cpu": ["a/b", [[[[[0]]]]], 4]})),
        ("EvidenceSet", "a record of four", cbor({"cpu": ["a/b", b"", 4, 0]})),
        ("EvidenceSet", "unknown label", cbor({"tpm": ["a/b", b"", 4]})),
        ("EvidenceSet", "not marked as evidence", cbor({"cpu": ["a/b", b"", 2]})),
        ("AttestResponse", "index outside of the tree", cbor({**RESPONSE, 3: [3, 3, []]})),
        ("AttestResponse", "empty tree", cbor({**RESPONSE, 3: [0, 0, []]})),
        ("AttestResponse", "tree of 4097 leaves", cbor({**RESPONSE, 3: [0, 4097, []]})),
        ("AttestResponse", "path of 13 nodes", cbor({**RESPONSE, 3: [0, 1, [b"\0" * 32] * 13]})),
        ("AttestResponse", "endorsement under another digest", cbor({**RESPONSE, 4: {b"\0" * 32: ENDORSEMENT}})),
        ("AttestResponse", "no endorsements, but their field", cbor({**RESPONSE, 4: {}})),
        ("ReleaseManifest", "another type", cbor({**RELEASE, 0: "cocoon-release/2"})),
        ("ReleaseManifest", "no file", cbor({**RELEASE, 4: {}})),
        ("ReleaseManifest", "a path out of the image", cbor({**RELEASE, 4: {"../vmlinuz": [7, b"\x07" * 32]}})),
        ("ReleaseManifest", "a version with a newline", cbor({**RELEASE, 1: "1.0.0\n"})),
        ("ReleaseManifest", "SNP values that are not sorted", cbor({**RELEASE, 6: RELEASE[6][::-1]})),
        ("ReleaseManifest", "a component twice", cbor({**RELEASE, 9: [RELEASE[9][0]] * 2})),
        ("ReleaseManifest", "an empty list", cbor({**RELEASE, 8: []})),
        ("ReleaseManifest", "a machine without processors", cbor({**RELEASE, 6: [[0, "x", None, b"\x01" * 48]]})),
        ("ReleaseManifest", "unknown field", cbor({**RELEASE, 10: 0})),
        ("ReleaseBundle", "another type", cbor({**release_bundle(), 0: "cocoon-release-bundle/2"})),
        ("ReleaseBundle", "signatures that are not sorted", cbor({**release_bundle(), 2: release_bundle()[2][::-1]})),
        ("ReleaseBundle", "two signatures of one key", cbor({**release_bundle(), 2: release_bundle()[2][:1] * 2})),
        ("ReleaseBundle", "17 signatures", cbor({**release_bundle(), 2: [[bytes([n]) * 32, SIGNATURE] for n in range(17)]})),
        ("ReleaseBundle", "a path of 41 nodes", cbor({**release_bundle(), 3: [1, [b"\x05" * 32] * 41, note()]})),
        ("ReleaseBundle", "a note without signatures", cbor({**release_bundle(), 3: [1, [], CHECKPOINT]})),
        ("ReleaseBundle", "a note that is no checkpoint", cbor({**release_bundle(), 3: [1, [], note().replace("\n2\n", "\n02\n")]})),
        ("ReleaseBundle", "a manifest that is malformed", cbor({**release_bundle(), 1: cbor({0: "cocoon-release/1"})})),
        ("AttestResponse", "nested deeper than 6", cbor({**RESPONSE, 5: [[[[[[[0]]]]]]]})),
    ]
    blocks = [block(message=m, verdict="valid", name=n, bytes=b) for m, n, b in good]
    blocks += [block(message=m, verdict="malformed", name=n, bytes=b.hex() or "-") for m, n, b in bad]
    return file("""CBOR bodies, valid and malformed. A decoder accepts every valid one, encodes it to the same bytes again, and refuses every
malformed one.""", blocks)


def frames():
    blocks = []
    for name, code, limit in (("AttestRequest", 1, 4096), ("AttestResponse", 2, 262144), ("close", 255, 0)):
        blocks.append(block(name=name, verdict="valid", header=limit.to_bytes(4, "big") + bytes([code]), kind=code, length=limit))
        blocks.append(block(name=f"{name}, one byte too long", verdict="malformed", header=(limit + 1).to_bytes(4, "big") + bytes([code])))
    for code in (0, 3, 22, 254):
        blocks.append(block(name=f"type {code}", verdict="malformed", header=bytes([0, 0, 0, 0, code])))
    return file("""Headers of frames: u32 length of the body, big-endian, then the type. The longest body of each type, and one byte more.""", blocks)


def digests():
    manifest = cbor({0: "cocoon-model/1", 1: "gguf", 2: [["model.gguf", 13, h256(b"GGUF and more")]]})
    config = cbor({0: "cocoon-config/1", 1: {"a": "1", "model_digest": "any"}})
    return file("""Digests that S carries. A model of one GGUF file with the content "GGUF and more"; a configuration of two settings.""", [
        block(name="model manifest", size=13, sha256=h256(b"GGUF and more"), manifest=manifest, digest=h256(manifest)),
        block(name="configuration", settings="a=1 model_digest=any", encoded=config, digest=h256(config)),
    ])


def hkdf_expand(hash_name, secret, info, length):
    """RFC 5869 section 2.3."""
    out, last = b"", b""
    for i in range(1, 256):
        if len(out) >= length:
            return out[:length]
        last = hmac.new(secret, last + info + bytes([i]), hash_name).digest()
        out += last
    raise ValueError(length)


def expand_label(hash_name, secret, name, context, length):
    """RFC 8446 section 7.1."""
    name = b"tls13 " + name
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + bytes([len(context)]) + context
    return hkdf_expand(hash_name, secret, info, length)


def tls_exporter(hash_name, exporter_master_secret, name, context, length):
    """RFC 8446 section 7.5."""
    empty, digest = hashlib.new(hash_name, b""), hashlib.new(hash_name, context)
    derived = expand_label(hash_name, exporter_master_secret, name, empty.digest(), digest.digest_size)
    return expand_label(hash_name, derived, b"exporter", digest.digest(), length)


def exporter():
    # RFC 5869, test case 1, so that this function is not only consistent with itself.
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    prk = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    assert hkdf_expand("sha256", prk, bytes(range(0xF0, 0xFA)), 42).hex() == okm
    # RFC 8448 section 3: the server's traffic key from its handshake traffic secret.
    secret = bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    assert expand_label("sha256", secret, b"key", b"", 16).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    blocks = []
    for hash_name, suite in (("sha256", 0x1301), ("sha384", 0x1302), ("sha256", 0x1303)):
        secret = bytes(range(0x40, 0x40 + hashlib.new(hash_name).digest_size))
        for role in (1, 2):
            context = bytes([role]) + h256(cbor(REQUESTS["minimal"]))
            name = "EXPERIMENTAL cocoon attest v1"
            blocks.append(block(
                name=f"suite {suite:04x}, role {role}", cipher_suite=suite, hash=hash_name, exporter_master_secret=secret, label=name,
                role=role, request=cbor(REQUESTS["minimal"]), context=context,
                exported=tls_exporter(hash_name, secret, name.encode(), context, 32)))
    return file("""The TLS exporter (RFC 8446 section 7.5) for the context of cocoon/1, from an exporter_master_secret of made-up bytes:
HKDF-Expand-Label(Derive-Secret(exporter_master_secret, label, ""), "exporter", Hash(context), 32), Hash being that of the suite.""", blocks)


def main():
    wrong = []
    for name, make in (("binding", binding), ("exporter", exporter), ("merkle", merkle), ("messages", messages), ("frames", frames),
                       ("digests", digests), ("release", release)):
        target, text = HERE / f"{name}.txt", make()
        if sys.argv[1:] != ["--check"]:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            wrong.append(target.name)
    if wrong:
        sys.exit(f"not what make.py writes: {', '.join(wrong)}")


main()
