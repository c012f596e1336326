//! Which kernel modules the image has, and in which order they are loaded.
//!
//! The kernel's package has no `modules.dep`: that is made where it is installed. Each module says in its section `.modinfo` what it
//! depends on, so the order is found here, once, and is part of the measured initramfs.

use std::collections::BTreeMap;
use std::io::Read;

use lzma_rust2::XzReader;
use object::{Object, ObjectSection};

use super::Error;

/// Every module that an enclave may load. What they depend on comes along. Nothing else is in the image, so nothing else can be
/// loaded: and after these the enclave forbids it.
pub const WANTED: [&str; 7] = [
    // Reports of the processor.
    "tsm",
    "sev-guest",
    "tdx-guest",
    // The model, the configuration and endorsements.
    "virtio_blk",
    // Clients.
    "virtio_net",
    "vmw_vsock_virtio_transport",
    // The processor's own randomness is there before: this one only adds to it.
    "virtio-rng",
];

/// No module of a cloud kernel is as large when unpacked.
const MAX_MODULE: u64 = 64 << 20;

/// One module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, with `_` for `-` as the kernel has it.
    pub name: String,
    /// The compressed file as the package has it: the kernel unpacks it and checks its signature.
    pub file: Vec<u8>,
}

/// The modules of [`WANTED`] and `more`, and what they depend on, each behind what it depends on. `files` are a package's, by path.
///
/// # Errors
/// [`Error::Package`] if a module is missing, cannot be read, is not signed, or depends on itself.
pub fn resolve(files: &BTreeMap<String, Vec<u8>>, more: &[&str]) -> Result<Vec<Module>, Error> {
    let by_name: BTreeMap<String, &Vec<u8>> =
        files.iter().filter_map(|(path, file)| Some((module_name(path)?, file))).collect();
    let mut order = Vec::new();
    for wanted in WANTED.iter().chain(more) {
        add(&canonical(wanted), &by_name, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    files: &BTreeMap<String, &Vec<u8>>,
    above: &mut Vec<String>,
    order: &mut Vec<Module>,
) -> Result<(), Error> {
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if above.iter().any(|module| module == name) {
        return Err(Error::package(name, "this kernel module depends on itself"));
    }
    let file = *files.get(name).ok_or_else(|| Error::package(name, "the kernel has no such module"))?;
    above.push(name.to_owned());
    for dependency in depends(name, file)? {
        add(&dependency, files, above, order)?;
    }
    above.pop();
    order.push(Module { name: name.to_owned(), file: file.clone() });
    Ok(())
}

/// `usr/lib/modules/6.12/kernel/drivers/virt/coco/tsm.ko.xz` is `tsm`.
fn module_name(path: &str) -> Option<String> {
    path.rsplit('/').next()?.strip_suffix(".ko.xz").map(canonical)
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What a kernel module that is signed ends with (Linux, Documentation/admin-guide/module-signing.rst).
const SIGNED: &[u8] = b"~Module signature appended~\n";

fn depends(name: &str, file: &[u8]) -> Result<Vec<String>, Error> {
    let wrong = |why: String| Error::package(name, why);
    let mut module = Vec::new();
    let unpacked = XzReader::new(file, false).take(MAX_MODULE + 1).read_to_end(&mut module);
    unpacked.map_err(|e| wrong(format!("this kernel module cannot be unpacked: {e}")))?;
    if module.len() as u64 > MAX_MODULE {
        return Err(wrong(format!("this kernel module is larger than {MAX_MODULE} bytes")));
    }
    if !module.ends_with(SIGNED) {
        return Err(wrong(
            "this kernel module is not signed, so a hardened kernel would not load it".to_owned(),
        ));
    }
    let broken = |e: object::Error| wrong(format!("this kernel module is no ELF file: {e}"));
    let elf = object::File::parse(module.as_slice()).map_err(broken)?;
    let section = elf.section_by_name(".modinfo").ok_or_else(|| wrong("it has no .modinfo".to_owned()))?;
    let info = section.data().map_err(broken)?;
    let list = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let list =
        String::from_utf8_lossy(list.ok_or_else(|| wrong("it does not say what it depends on".to_owned()))?);
    Ok(list.split(',').filter(|name| !name.is_empty()).map(canonical).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::deb::tests::xz;

    /// An ELF file with nothing but `.modinfo`, signed in name only.
    pub(crate) fn module(depends: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // Type, machine, version; entry, program headers, section headers.
        out.extend_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]);
        let (info_at, names_at) = (64u64, 64 + info.len() as u64);
        let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
        for field in [0u64, 0, sections_at] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(&[0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        out.extend_from_slice(info.as_bytes());
        out.extend_from_slice(names);
        out.resize(usize::try_from(sections_at).unwrap(), 0);
        let section = |name: u32, kind: u32, at: u64, size: u64| {
            let mut header = Vec::new();
            header.extend_from_slice(&name.to_le_bytes());
            header.extend_from_slice(&kind.to_le_bytes());
            for field in [0, 0, at, size, 0, 1, 0] {
                header.extend_from_slice(&field.to_le_bytes());
            }
            header
        };
        out.extend(section(0, 0, 0, 0));
        out.extend(section(1, 1, info_at, info.len() as u64));
        out.extend(section(10, 3, names_at, names.len() as u64));
        out.extend_from_slice(SIGNED);
        xz(&out)
    }

    /// All that are wanted, with these dependencies.
    fn kernel(special: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let path = |name: &str| format!("usr/lib/modules/6.12/kernel/{name}.ko.xz");
        let mut files: BTreeMap<_, _> = WANTED.iter().map(|name| (path(name), module(""))).collect();
        files.extend(special.iter().map(|(name, depends)| (path(name), module(depends))));
        files
    }

    fn names(modules: &[Module]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let files = kernel(&[
            ("sev-guest", "tsm"),
            ("tsm", "configfs"),
            ("configfs", ""),
            ("virtio_net", "net-failover"),
            ("net_failover", "failover"),
            ("failover", ""),
            ("unwanted", ""),
        ]);
        let modules = resolve(&files, &[]).unwrap();
        let want = [
            "configfs",
            "tsm",
            "sev_guest",
            "tdx_guest",
            "virtio_blk",
            "failover",
            "net_failover",
            "virtio_net",
            "vmw_vsock_virtio_transport",
            "virtio_rng",
        ];
        assert_eq!(names(&modules), want);
    }

    #[test]
    fn kernels_that_lack_something_are_refused() {
        let refused = |files: BTreeMap<String, Vec<u8>>| resolve(&files, &[]).unwrap_err().to_string();
        let for_gpus = resolve(&kernel(&[]), &["nvidia"]).unwrap_err().to_string();
        assert!(for_gpus.contains("nvidia: the kernel has no such module"), "{for_gpus}");
        assert!(refused(BTreeMap::new()).contains("tsm: the kernel has no such module"));
        assert!(refused(kernel(&[("tsm", "configfs")])).contains("configfs: the kernel has no such module"));
        assert!(
            refused(kernel(&[("tsm", "a"), ("a", "tsm")]))
                .contains("tsm: this kernel module depends on itself")
        );
        let with = |file: Vec<u8>| {
            let mut files = kernel(&[]);
            files.insert("tsm.ko.xz".to_owned(), file);
            files.retain(|path, _| !path.ends_with("kernel/tsm.ko.xz"));
            refused(files)
        };
        assert!(with(b"odd".to_vec()).contains("cannot be unpacked"));
        assert!(with(xz(b"no signature")).contains("is not signed"));
        assert!(with(xz(SIGNED)).contains("is no ELF file"));
    }
}
