#!/usr/bin/env python3
"""A second implementation of what docs/releases.md says about logs and releases, from the specifications alone: C2SP signed-note,
tlog-checkpoint, tlog-cosignature and tlog-tiles, RFC 9162, RFC 8032, RFC 8949. Nothing but the standard library.

    check.py log DIR --origin NAME --key HEX [--older CHECKPOINT].. [--index N]..
        the checkpoint's signatures, every tile and entry, the root, inclusion of entries, consistency with older checkpoints
    check.py release FILE [--signer HEX].. [--rebuilder HEX].. [--origin NAME --key HEX [--witness NAME=HEX]..]
        a release bundle: signatures, inclusion in the log, cosignatures
"""
import argparse
import base64
import hashlib
import os
import sys


def sha256(data):
    return hashlib.sha256(data).digest()


# --- Ed25519 verification (RFC 8032 section 5.1.7), slow and simple.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def decode_point(data):
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x - u) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (v * x * x - u) % P:
        return None
    sign = data[31] >> 7
    if x == 0 and sign:
        return None
    return (P - x if x & 1 != sign else x), y


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def multiply(n, point):
    out = (0, 1)
    while n:
        if n & 1:
            out = add(out, point)
        point, n = add(point, point), n >> 1
    return out


BASE = decode_point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(key, message, signature):
    a, r, s = decode_point(key), decode_point(signature[:32]), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return multiply(s, BASE) == add(r, multiply(k, a))


# --- Merkle trees (RFC 9162 section 2.1).
def leaf(entry):
    return sha256(b"\0" + entry)


def node(left, right):
    return sha256(b"\1" + left + right)


def tree(hashes):
    """Root of hashes that are roots of equal, full trees."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return node(tree(hashes[:split]), tree(hashes[split:]))


def inclusion(m, hashes):
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if m < split:
        return inclusion(m, hashes[:split]) + [tree(hashes[split:])]
    return inclusion(m - split, hashes[split:]) + [tree(hashes[:split])]


def includes(entry_hash, index, size, path, root):
    """RFC 9162 section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, entry_hash
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def consistency(m, hashes, whole=True):
    """RFC 9162 section 2.1.4.1, SUBPROOF."""
    n = len(hashes)
    if m == n:
        return [] if whole else [tree(hashes)]
    split = 1 << (n - 1).bit_length() - 1
    if m <= split:
        return consistency(m, hashes[:split], whole) + [tree(hashes[split:])]
    return consistency(m - split, hashes[split:], False) + [tree(hashes[:split])]


def is_consistent(first, first_root, second, second_root, path):
    """RFC 9162 section 2.1.4.2."""
    if first == second:
        return first_root == second_root and not path
    if first == 0:
        return not path
    path = list(path)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root


# --- Notes and checkpoints.
class Note:
    def __init__(self, note):
        text, lines = note.rsplit("\n\n", 1)
        self.text = text + "\n"
        self.origin, size, root = text.split("\n")
        self.size, self.root = int(size), base64.b64decode(root, validate=True)
        self.lines = {}
        for line in lines.removesuffix("\n").split("\n"):
            dash, name, encoded = line.split(" ")
            assert dash == "\u2014", "a line that is no signature"
            raw = base64.b64decode(encoded, validate=True)
            self.lines[name, raw[:4]] = raw[4:]

    def line(self, name, kind, key):
        return self.lines.get((name, sha256(name.encode() + b"\n" + bytes([kind]) + key)[:4]))

    def is_signed(self, name, key):
        signature = self.line(name, 1, key)
        return signature is not None and is_signed(key, self.text.encode(), signature)

    def cosigned(self, name, key):
        signature = self.line(name, 4, key)
        if signature is None:
            return None
        time = int.from_bytes(signature[:8], "big")
        message = f"cosignature/v1\ntime {time}\n{self.text}".encode()
        return time if is_signed(key, message, signature[8:]) else None


# --- Tiles.
def tile_name(index):
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return "/".join(groups)


def read_tiles(directory, level, count):
    for index in range((count + 255) // 256):
        width = min(256, count - 256 * index)
        path = f"{directory}/tile/{level}/{tile_name(index)}" + (f".p/{width}" if width < 256 else "")
        with open(path, "rb") as file:
            yield path, width, file.read()


def read_hashes(directory, level, count):
    out = []
    for path, width, data in read_tiles(directory, level, count):
        if len(data) != 32 * width:
            sys.exit(f"{path}: {len(data)} bytes")
        out += [data[at : at + 32] for at in range(0, len(data), 32)]
    return out


def read_entries(directory, count):
    for path, width, data in read_tiles(directory, "entries", count):
        found = 0
        while data:
            length = int.from_bytes(data[:2], "big")
            entry, data = data[2 : 2 + length], data[2 + length :]
            found += 1
            yield entry
        if found != width:
            sys.exit(f"{path}: {found} entries")


def check_log(args):
    with open(os.path.join(args.dir, "checkpoint"), encoding="utf-8") as file:
        note = Note(file.read())
    if note.origin != args.origin or not note.is_signed(args.origin, args.key):
        sys.exit("checkpoint: not signed by the log")
    if note.cosigned(args.origin, args.key) is None:
        sys.exit("checkpoint: no time of the log")
    leaves = read_hashes(args.dir, 0, note.size)
    if [leaf(entry) for entry in read_entries(args.dir, note.size)] != leaves:
        sys.exit("entries: others than in the tiles")
    level, below = 1, leaves
    while len(below) >= 256:
        above = read_hashes(args.dir, level, len(below) // 256)
        if above != [tree(below[256 * n : 256 * n + 256]) for n in range(len(above))]:
            sys.exit(f"tile/{level}: not what follows from the level below")
        level, below = level + 1, above
    if tree(leaves) != note.root:
        sys.exit("checkpoint: another root than the tiles'")
    for index in args.index:
        if not includes(leaves[index], index, note.size, inclusion(index, leaves), note.root):
            sys.exit(f"entry {index}: not included")
    for path in args.older:
        with open(path, encoding="utf-8") as file:
            old = Note(file.read())
        if not old.is_signed(args.origin, args.key) or old.size > note.size:
            sys.exit(f"{path}: not an older checkpoint of this log")
        proof = consistency(old.size, leaves) if 0 < old.size < note.size else []
        if not is_consistent(old.size, old.root, note.size, note.root, proof):
            sys.exit(f"{path}: the log was forked")
    print(f"{note.size} {note.root.hex()}")


# --- Releases.
def decode(data):
    """The CBOR of cocoon/1: integers, strings, arrays, maps, null."""
    head, data = data[0], data[1:]
    major, n = head >> 5, head & 31
    if head == 0xF6:
        return None, data
    if n >= 24:
        width = 1 << n - 24
        n, data = int.from_bytes(data[:width], "big"), data[width:]
    if major == 0:
        return n, data
    if major in (2, 3):
        text = data[:n]
        return (text if major == 2 else text.decode()), data[n:]
    out = []
    for _ in range(n * (2 if major == 5 else 1)):
        item, data = decode(data)
        out.append(item)
    return (dict(zip(out[::2], out[1::2])) if major == 5 else out), data


def label(text):
    return text.ljust(32, b"\0")


def check_release(args):
    with open(args.file, "rb") as file:
        bundle, rest = decode(file.read())
    manifest, _ = decode(bundle[1])
    if rest or bundle[0] != "cocoon-release-bundle/1" or manifest[0] != "cocoon-release/1":
        sys.exit("not a release")
    digest = sha256(bundle[1])
    signatures, rebuilds = dict(bundle.get(2, [])), {key: (time, s) for key, time, s in bundle.get(4, [])}
    for key in args.signer:
        if key not in signatures or not is_signed(key, label(b"cocoon/release/v1") + digest, signatures[key]):
            sys.exit(f"not signed by {key.hex()}")
    for key in args.rebuilder:
        time, signature = rebuilds.get(key, (0, b""))
        if not is_signed(key, label(b"cocoon/rebuild/v1") + digest + time.to_bytes(8, "big"), signature):
            sys.exit(f"not rebuilt by {key.hex()}")
    if args.origin:
        index, path, text = bundle[3]
        note = Note(text)
        if note.origin != args.origin or not note.is_signed(args.origin, args.key):
            sys.exit("checkpoint: not signed by the log")
        entry = f"cocoon-release/1\n{manifest[1]}\n{digest.hex()}\n".encode()
        if not includes(leaf(entry), index, note.size, path, note.root):
            sys.exit("not in the log")
        for witness in args.witness:
            name, key = witness.split("=")
            if note.cosigned(name, bytes.fromhex(key)) is None:
                sys.exit(f"not cosigned by {name}")
    print(digest.hex())


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    log = commands.add_parser("log")
    log.add_argument("dir")
    log.add_argument("--older", action="append", default=[])
    log.add_argument("--index", action="append", default=[], type=int)
    log.set_defaults(run=check_log)
    release = commands.add_parser("release")
    release.add_argument("file")
    release.add_argument("--signer", action="append", default=[], type=bytes.fromhex)
    release.add_argument("--rebuilder", action="append", default=[], type=bytes.fromhex)
    release.add_argument("--witness", action="append", default=[])
    release.set_defaults(run=check_release)
    for command in (log, release):
        command.add_argument("--origin")
        command.add_argument("--key", type=bytes.fromhex)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
