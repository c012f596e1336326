//! From locked packages and the enclave program to an image directory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::compile::{self, Recipe};
use super::cuda::Driver;
use super::lock::{Lock, Package};
use super::manifest::{Content, FORMAT, Input, Manifest, Profile};
use super::newc::Initramfs;
use super::store::Store;
use super::toolchain::{self, Toolchain};
use super::{Error, cuda, deb, modules};

/// The measured command line; `docs/image.md` says why each word is there.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=0 panic=-1 oops=panic rdinit=/init \
     lockdown=confidentiality module.sig_enforce=1 sysctl.kernel.sysrq=0 debugfs=off \
     random.trust_bootloader=off ipv6.disable=1 vsyscall=none \
     init_on_alloc=1 init_on_free=1 slab_nomerge page_alloc.shuffle=1 randomize_kstack_offset=on mitigations=auto \
     cocoon.drain-timeout=3600";

/// What a simulated image has behind it.
const SIMULATED: &str = " cocoon.tee=sim";

/// What has an influence on `/init` and is in no lock file.
const NOT_LOCKED: [&str; 2] = [
    "headers of the C library, through which the C files of ring are compiled",
    "settings of cargo outside the source tree and its environment (config.toml in CARGO_HOME and above the source)",
];

/// What to build, and from what.
#[derive(Debug)]
pub struct Order<'a> {
    /// Packages and tools.
    pub lock: &'a Lock,
    /// Where packages come from.
    pub store: &'a Store,
    /// How the program is compiled.
    pub recipe: &'a Recipe,
    /// NVIDIA's driver, for an image for that many GPUs.
    pub gpus: Option<(&'a Driver, u32)>,
    /// Whether a toolchain that is not locked will do: for development.
    pub any_toolchain: bool,
}

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
    /// Its files, but the manifest.
    pub parts: Vec<Part>,
    /// `manifest.json`.
    pub manifest: Manifest,
}

impl Order<'_> {
    /// Builds.
    ///
    /// # Errors
    /// [`Error`]: a package or tool is missing, not the locked one, or lacks what the recipe takes from it.
    pub fn build(&self) -> Result<Image, Error> {
        // What can be refused is refused before minutes are spent on compiling.
        let toolchain = Toolchain::installed()?;
        let tools = toolchain::compare(toolchain.tools()?, self.lock, self.any_toolchain)?;
        let packaged = self.packaged()?;
        let enclave = self.recipe.compile(&toolchain)?;
        let command_line = self.command_line();
        let config = describe(&enclave, &command_line)?;
        let mut initramfs = packaged.initramfs;
        initramfs.file("init", 0o555, enclave);
        let initrd = initramfs.encode().ok_or_else(|| Error::package("initrd", "a file of 4 GiB or more"))?;
        let part = |path, content| Part { path, content };
        let parts = vec![
            part("vmlinuz", packaged.vmlinuz),
            part("initrd", initrd),
            part("cmdline", command_line.into_bytes()),
            part("snp/OVMF.amdsev.fd", packaged.snp_firmware),
            part("tdx/OVMF.fd", packaged.tdx_firmware),
        ];
        let input = |package: &Package| Input {
            name: package.name.clone(),
            version: package.version.clone(),
            sha256: package.sha256,
        };
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            profile: if self.gpus.is_some() { Profile::Cuda } else { Profile::Cpu },
            simulated: self.recipe.simulated,
            parts: parts.iter().map(|part| (part.path.to_owned(), Content::of(&part.content))).collect(),
            initrd: initramfs.entries(),
            config,
            inputs: packaged.used.iter().map(input).collect(),
            lock: self.lock.digest,
            toolchain: tools,
            not_locked: NOT_LOCKED.map(str::to_owned).into(),
        };
        Ok(Image { parts, manifest })
    }

    fn command_line(&self) -> String {
        let gpus = self.gpus.map_or_else(String::new, |(_, gpus)| format!(" cocoon.gpus={gpus}"));
        format!("{COMMAND_LINE}{gpus}{}", if self.recipe.simulated { SIMULATED } else { "" })
    }

    fn packaged(&self) -> Result<Packaged, Error> {
        let mut used = Vec::new();
        let (vmlinuz, initramfs) = self.kernel(&mut used)?;
        let mut firmware = |name: &str, file: &str| {
            let package = self.lock.package(name)?;
            used.push(package.clone());
            let files = deb::extract(package.file(), &self.store.read(package)?, |path| path == file)?;
            only(package.file(), &files, |path| path == file)
        };
        let snp_firmware = firmware("ovmf-amdsev", "usr/share/ovmf/OVMF.amdsev.fd")?;
        let tdx_firmware = firmware("ovmf", "usr/share/ovmf/OVMF.fd")?;
        Ok(Packaged { vmlinuz, initramfs, snp_firmware, tdx_firmware, used })
    }

    /// The kernel, and an initramfs with everything but the program.
    fn kernel(&self, used: &mut Vec<Package>) -> Result<(Vec<u8>, Initramfs), Error> {
        // NVIDIA's modules are in a kernel of the operator's, if in any.
        let own = self.gpus.and_then(|(driver, _)| {
            driver.lock.package("linux-image-").is_ok().then(|| (driver.lock.clone(), driver.store()))
        });
        let (lock, store) = own.as_ref().map_or((self.lock, self.store), |(lock, store)| (lock, store));
        let kernel = lock.package("linux-image-")?;
        used.push(kernel.clone());
        let files = deb::extract(kernel.file(), &store.read(kernel)?, |path| {
            path.starts_with("boot/vmlinuz-") || path.ends_with(".ko.xz")
        })?;
        let more: &[&str] = if self.gpus.is_some() { &cuda::MODULES } else { &[] };
        let mut initramfs = skeleton(&modules::resolve(&files, more)?);
        if let Some((driver, _)) = self.gpus {
            used.extend(cuda::add_libraries(self.lock, self.store, &mut initramfs)?);
            used.extend(driver.add(&mut initramfs)?);
        }
        Ok((only(kernel.file(), &files, |path| path.starts_with("boot/vmlinuz-"))?, initramfs))
    }
}

/// What packages give.
struct Packaged {
    vmlinuz: Vec<u8>,
    initramfs: Initramfs,
    snp_firmware: Vec<u8>,
    tdx_firmware: Vec<u8>,
    used: Vec<Package>,
}

/// The program says what its configuration is; it must be a file for that.
fn describe(enclave: &[u8], command_line: &str) -> Result<cocoon_attestation::Digest, Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { what: "write", path, source }
    };
    let folder = tempfile::tempdir().map_err(at(&std::env::temp_dir()))?;
    let path = folder.path().join("cocoon-enclave");
    std::fs::write(&path, enclave).map_err(at(&path))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(at(&path))?;
    compile::config_digest(&path, command_line)
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

/// Everything but the program.
fn skeleton(modules: &[modules::Module]) -> Initramfs {
    let mut out = Initramfs::new();
    out.device("dev/console", 0o600, (5, 1));
    for folder in ["proc", "run", "sys"] {
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
        std::fs::create_dir_all(folder.parent().unwrap_or(folder)).map_err(at(folder))?;
        std::fs::create_dir(folder).map_err(at(folder))?;
        let manifest = serde_json::to_string_pretty(&self.manifest).map_err(|e| at(folder)(e.into()))?;
        let parts = self.parts.iter().map(|part| (part.path, part.content.as_slice()));
        for (name, content) in parts.chain([("manifest.json", format!("{manifest}\n").as_bytes())]) {
            let path = folder.join(name);
            if let Some(above) = path.parent() {
                std::fs::create_dir_all(above).map_err(at(above))?;
            }
            std::fs::write(&path, content).map_err(at(&path))?;
        }
        Ok(())
    }
}
