//! From locked packages and the enclave program to an image directory.

use std::collections::BTreeMap;
use std::path::Path;

use cocoon_attestation::Digest;

use super::lock::Lock;
use super::newc::Initramfs;
use super::store::Store;
use super::{Error, deb, modules};

/// The measured command line; `docs/image.md` says why each word is there.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 oops=panic rdinit=/init \
     lockdown=confidentiality module.sig_enforce=1 ipv6.disable=1 \
     mitigations=auto init_on_alloc=1 init_on_free=1 slab_nomerge randomize_kstack_offset=on vsyscall=none \
     debugfs=off kfence.sample_interval=0 random.trust_cpu=on random.trust_bootloader=off \
     swiotlb=any";

/// What one file of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Path in the image directory.
    pub path: &'static str,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A whole image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its files.
    pub parts: Vec<Part>,
    /// Paths and sizes of what is in the initramfs.
    pub initramfs: Vec<(String, usize)>,
}

/// Puts an image together: packages of `lock` from `store`, and `enclave`, the program.
///
/// # Errors
/// [`Error`]: a package is missing, not the locked one, or lacks what the recipe takes from it.
pub fn build(lock: &Lock, store: &Store, enclave: Vec<u8>) -> Result<Image, Error> {
    let kernel = lock.package("linux-image-")?;
    let files = deb::extract(kernel.file(), &store.read(kernel)?, |path| {
        path.starts_with("boot/vmlinuz-") || path.ends_with(".ko.xz")
    })?;
    let vmlinuz = only(kernel.file(), &files, |path| path.starts_with("boot/vmlinuz-"))?;
    let initramfs = initramfs(enclave, &modules::resolve(&files)?);
    let initrd = initramfs.encode().ok_or_else(|| Error::package("initrd", "a file of 4 GiB or more"))?;
    let firmware = |name: &str, file: &str| {
        let package = lock.package(name)?;
        let files = deb::extract(package.file(), &store.read(package)?, |path| path == file)?;
        only(package.file(), &files, |path| path == file)
    };
    let part = |path, content| Part { path, content };
    let contents = initramfs.files().map(|(path, content)| (path.to_owned(), content.len())).collect();
    Ok(Image {
        parts: vec![
            part("vmlinuz", vmlinuz),
            part("initrd", initrd),
            part("cmdline", COMMAND_LINE.as_bytes().to_vec()),
            part("snp/OVMF.amdsev.fd", firmware("ovmf-amdsev", "usr/share/ovmf/OVMF.amdsev.fd")?),
            part("tdx/OVMF.fd", firmware("ovmf", "usr/share/ovmf/OVMF.fd")?),
        ],
        initramfs: contents,
    })
}

fn only(
    package: &str,
    files: &BTreeMap<String, Vec<u8>>,
    is_it: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, Error> {
    let mut found = files.iter().filter(|(path, _)| is_it(path)).map(|(_, content)| content);
    match (found.next(), found.next()) {
        (Some(content), None) => Ok(content.clone()),
        (None, _) => Err(Error::package(package, "it does not have the file that an image needs of it")),
        (Some(_), Some(_)) => Err(Error::package(package, "it has several files where an image needs one")),
    }
}

fn initramfs(enclave: Vec<u8>, modules: &[modules::Module]) -> Initramfs {
    let mut out = Initramfs::new();
    out.file("init", 0o555, enclave);
    out.device("dev/console", 0o600, (5, 1));
    for folder in ["proc", "sys"] {
        out.folder(folder, 0o555);
    }
    let order: Vec<_> = modules.iter().map(|module| format!("{}\n", module.name)).collect();
    out.file("modules/order", 0o444, order.concat().into_bytes());
    for module in modules {
        out.file(&format!("modules/{}.ko.xz", module.name), 0o444, module.file.clone());
    }
    out
}

impl Image {
    /// Writes the files below `folder`, which must not exist yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what: "write", path, source }
        };
        std::fs::create_dir(folder).map_err(at(folder))?;
        for part in &self.parts {
            let path = folder.join(part.path);
            if let Some(above) = path.parent() {
                std::fs::create_dir_all(above).map_err(at(above))?;
            }
            std::fs::write(&path, &part.content).map_err(at(&path))?;
        }
        Ok(())
    }
}

impl Part {
    /// SHA-256 of the content.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.content)
    }
}
