#!/usr/bin/env python3
"""Launch measurements by other programs than ours: an implementation of TDX's registers of its own, and PyPI sev-snp-measure.

    launch.py make                    writes launch.txt, launch.fd and launch.efi (needs sev-snp-measure)
    launch.py check                   the same, but compares
    launch.py tdx FIRMWARE KERNEL INITRD CMDLINE    prints mr_td, rtmr1, rtmr2; all four are files
    launch.py snp FIRMWARE KERNEL INITRD CMDLINE    reads lines "VCPUS TYPE FEATURES" and prints a measurement for each

It shares no code with the crate cocoon-measurements.
"""

import hashlib
import lzma
import pathlib
import struct
import sys
import tempfile
import uuid

HERE = pathlib.Path(__file__).resolve().parent


def sha384(data):
    return hashlib.sha384(data).digest()


# --- TDX -------------------------------------------------------------------------------------------------------------------


def tdvf_sections(firmware):
    """Walks the GUID table upwards from 48 bytes before the end to the offset of the TDVF descriptor."""
    tdx = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
    end = len(firmware) - 48
    total = struct.unpack_from("<H", firmware, end - 2)[0]
    low, at = end + 16 - total, end - 2
    while at > low:
        length, name = struct.unpack_from("<H16s", firmware, at - 18)
        if name == tdx:
            start = len(firmware) - struct.unpack_from("<I", firmware, at - length)[0]
            magic, _, version, count = struct.unpack_from("<4sIII", firmware, start)
            assert (magic, version) == (b"TDVF", 1)
            return [struct.unpack_from("<IIQQII", firmware, start + 16 + 32 * i) for i in range(count)]
        at -= length
    raise SystemExit("no TDX metadata")


def mr_td(firmware):
    state = hashlib.sha384()
    for offset, raw, address, size, _, attributes in tdvf_sections(firmware):
        if attributes & 2:
            continue
        memory = firmware[offset : offset + raw] + bytes(size - raw)
        for page in range(0, size, 4096):
            state.update(struct.pack("<16sQ104x", b"MEM.PAGE.ADD", address + page))
            if attributes & 1:
                for chunk in range(page, page + 4096, 256):
                    state.update(struct.pack("<16sQ104x", b"MR.EXTEND", address + chunk))
                    state.update(memory[chunk : chunk + 256])
    return state.digest()


def authenticode(pe):
    """The image hash: everything but checksum, certificate entry and certificates."""
    image = bytearray(pe)
    optional = struct.unpack_from("<I", pe, 60)[0] + 24
    plus = struct.unpack_from("<H", pe, optional)[0] == 0x20B
    entry = optional + (112 if plus else 96) + 32
    at, size = struct.unpack_from("<II", pe, entry)
    if size:
        # Certificates lie at the end in all files that this is tried with.
        assert at + size == len(pe)
        del image[at:]
    # From behind, so that places stay right.
    del image[entry : entry + 8]
    del image[optional + 64 : optional + 68]
    return sha384(bytes(image))


def replay(events):
    register = bytes(48)
    for event in events:
        register = sha384(register + event)
    return register


def rtmr1(kernel):
    texts = [b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"]
    start = [authenticode(kernel), sha384(b"Calling EFI Application from Boot Option"), sha384(bytes(4))]
    return replay(start + [sha384(text) for text in texts])


def load_options(firmware):
    """How OVMF's QemuLoadImageLib puts the kernel's line together, by the format's part that its unpacked volume has."""
    section = firmware.index(uuid.UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf").bytes_le) - 4
    data = section + struct.unpack_from("<H", firmware, section + 20)[0]
    volume = lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(firmware[data:])
    formats = {b"initrd=initrd \0": "initrd=initrd {}\0", b" initrd=initrd\0": "{} initrd=initrd\0"}
    (found,) = [line for part, line in formats.items() if part in volume]
    return found


def rtmr2(options, initrd, cmdline):
    return replay([sha384(options.format(cmdline.decode()).encode("utf-16-le")), sha384(initrd)])


# --- SNP -------------------------------------------------------------------------------------------------------------------


def snp(files, shapes):
    from sevsnpmeasure import guest, vcpu_types, vmm_types

    firmware, kernel, initrd, cmdline = files
    for vcpus, name, features in shapes:
        line = pathlib.Path(cmdline).read_text()
        signature = vcpu_types.CPU_SIGS[name]
        yield guest.snp_calc_launch_digest(
            vcpus, signature, str(firmware), str(kernel), str(initrd), line, features, "", vmm_types.VMMType.QEMU
        )


# --- A small firmware and a small kernel -----------------------------------------------------------------------------------


def guid_entry(name, data):
    return data + struct.pack("<H16s", len(data) + 18, uuid.UUID(name).bytes_le)


def small_firmware():
    """Two pages with all that OVMF has at its end."""
    size = 8192
    sev = [(0x800000, 0x3000, 1), (0x80D000, 0x1000, 2), (0x80E000, 0x1000, 3), (0x80F000, 0x1000, 4)]
    sev += [(0x810000, 0x1000, 0x10), (0x811000, 0x2000, 1)]
    sev_at = size - 0x400
    tdx = [(0x1000, 0x1000, 0xFFFFF000, 0x1000, 0, 1), (0, 0x1000, 0xFFFFE000, 0x1000, 1, 0)]
    tdx += [(0, 0, 0x809000, 0x2000, 2, 0), (0x40, 0x1080, 0x820000, 0x3000, 0, 1), (0, 0, 0x830000, 0x1000, 4, 2)]
    tdx_at = size - 0x600
    table = guid_entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004))
    table += guid_entry("4c2eb361-7d9b-4cc3-8081-127c90d3d294", struct.pack("<II", 0x810000, 0xC00))
    table += guid_entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x810C00, 0x400))
    table += guid_entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", size - sev_at))
    table += guid_entry("e47a6535-984a-4798-865e-4685a7bf8ec2", struct.pack("<I", size - tdx_at))
    table += struct.pack("<H16s", len(table) + 18, uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le)
    out = bytearray((i * 7 + i // 256) % 251 for i in range(size))
    out[size - 32 - len(table) : size - 32] = table
    # A compressed section, as the volume of a real one, with "nothing \0initrd=initrd \0" in it; fixed, whatever version of liblzma
    # writes.
    volume = bytes.fromhex("5d00000400ffffffffffffffff00371bcaef20fd66b3384843f8f732574dd9264a55b046d67ffffdef9800")
    name = uuid.UUID("ee4e5898-3914-4259-9d6e-dc7bd79403cf").bytes_le
    section = (24 + len(volume)).to_bytes(3, "little") + b"\x02" + name + struct.pack("<HH", 24, 1) + volume
    out[0x100 : 0x100 + len(section)] = section
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sev), 1, len(sev))
    metadata += b"".join(struct.pack("<III", *section) for section in sev)
    out[sev_at : sev_at + len(metadata)] = metadata
    metadata = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(tdx), 1, len(tdx))
    metadata += b"".join(struct.pack("<IIQQII", *section) for section in tdx)
    out[tdx_at : tdx_at + len(metadata)] = metadata
    return bytes(out)


def small_kernel():
    """A PE32+ file with two sections, something behind them, and a certificate table at its end."""
    out = bytearray((i * 5) % 241 for i in range(0x700))
    out[:2], out[60:64] = b"MZ", struct.pack("<I", 0x80)
    out[0x80:0x98] = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 2, 0, 0, 0, 160, 0x206)
    optional = 0x98
    struct.pack_into("<H", out, optional, 0x20B)
    struct.pack_into("<II", out, optional + 60, 0x200, 0xDEADBEEF)
    struct.pack_into("<I", out, optional + 108, 6)
    struct.pack_into("<II", out, optional + 112 + 32, 0x680, 0x80)
    for i, (size, at) in enumerate([(0x200, 0x400), (0x200, 0x200)]):
        out[optional + 160 + 40 * i :][:40] = bytes(40)
        struct.pack_into("<8sIIII", out, optional + 160 + 40 * i, b".text", size, 0x1000, size, at)
    return bytes(out)


SHAPES = [(1, "EPYC", 1), (2, "EPYC-v4", 1), (3, "EPYC-IBPB", 1), (4, "EPYC-Rome", 1), (6, "EPYC-Rome-v3", 1)]
SHAPES += [(8, "EPYC-Milan", 1), (16, "EPYC-Milan-v2", 0x21), (31, "EPYC-Genoa", 1), (32, "EPYC-Genoa-v1", 0x201)]
SHAPES += [(64, "EPYC-Turin", 1), (128, "EPYC-Turin", 0x1), (255, "EPYC-Milan-v1", 0x3F)]


def made():
    """Names and contents of the files of this folder that come from here."""
    firmware, kernel, initrd, cmdline = small_firmware(), small_kernel(), b"initrd of the vectors", b"console=ttyS0 quiet"
    with tempfile.TemporaryDirectory() as folder:
        names = [pathlib.Path(folder) / name for name in ("firmware", "kernel", "initrd", "cmdline")]
        for name, content in zip(names, (firmware, kernel, initrd, cmdline)):
            name.write_bytes(content)
        digests = list(snp(names, SHAPES))
    lines = ["# Written by tests/vectors/launch.py: TDX by its own code, SNP by PyPI sev-snp-measure 0.0.13."]
    lines += ["# Firmware is launch.fd, the kernel is launch.efi.", f"initrd = {initrd.hex()}", f"cmdline = {cmdline.decode()}"]
    lines += [f"mr_td = {mr_td(firmware).hex()}", f"rtmr1 = {rtmr1(kernel).hex()}"]
    lines += [f"rtmr2 = {rtmr2(load_options(firmware), initrd, cmdline).hex()}"]
    lines += [f"rtmr2_last = {rtmr2('{} initrd=initrd' + chr(0), initrd, cmdline).hex()}", f"authenticode = {authenticode(kernel).hex()}"]
    for (vcpus, name, features), digest in zip(SHAPES, digests):
        lines += ["", f"vcpus = {vcpus}", f"type = {name}", f"features = {features:x}", f"measurement = {digest.hex()}"]
    return {"launch.txt": ("\n".join(lines) + "\n").encode(), "launch.fd": firmware, "launch.efi": kernel}


def main(args):
    command = args[0] if args else ""
    if command in ("make", "check") and len(args) == 1:
        for name, content in made().items():
            path = HERE / name
            if command == "make":
                path.write_bytes(content)
            elif path.read_bytes() != content:
                sys.exit(f"launch.py: {name} is not what this program makes; run: launch.py make")
    elif command == "tdx" and len(args) == 5:
        firmware, kernel, initrd, cmdline = (pathlib.Path(name).read_bytes() for name in args[1:])
        print(f"mr_td {mr_td(firmware).hex()}\nrtmr1 {rtmr1(kernel).hex()}")
        print(f"rtmr2 {rtmr2(load_options(firmware), initrd, cmdline).hex()}")
    elif command == "snp" and len(args) == 5:
        words = [line.split() for line in sys.stdin]
        for digest in snp(args[1:], [(int(vcpus), name, int(features, 16)) for vcpus, name, features in words]):
            print(digest.hex())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
