//! Whether files, initramfs and manifest of an image agree.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::directory::{Directory, Kind, MANIFEST, SNP_FIRMWARE, TDX_FIRMWARE};
use super::manifest::{Content, Entry, FORMAT, Manifest};
use super::{Error, archive};

/// What every image has beside its manifest.
pub const PARTS: [&str; 5] = ["vmlinuz", "initrd", "cmdline", SNP_FIRMWARE, TDX_FIRMWARE];

/// One thing that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// File, and behind a colon the entry in it.
    pub file: String,
    /// What of it: `sha256`, `size`, `mode`, `content`, `presence`.
    pub what: &'static str,
    /// What there is.
    pub got: String,
    /// What the manifest says.
    pub want: String,
}

/// An image and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What it says it is.
    pub manifest: Manifest,
    /// Its files, as they are.
    pub parts: BTreeMap<String, Content>,
    /// What is in its initramfs, as it is; empty if that cannot be read.
    pub initrd: Vec<Entry>,
    /// All differences.
    pub differences: Vec<Difference>,
}

impl Inspection {
    /// Bytes of all files that are booted.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.parts.values().map(|content| content.size).sum()
    }

    /// Programs and archives that made the image and are not those of the lock file.
    pub fn tools_not_locked(&self) -> impl Iterator<Item = &str> {
        self.manifest.toolchain.iter().filter(|tool| !tool.locked).map(|tool| tool.name.as_str())
    }
}

/// Reads an image and holds it against its manifest.
///
/// # Errors
/// [`Error`] if the directory or its manifest cannot be read. What differs is no error but in [`Inspection::differences`].
pub fn verify(image: &Directory) -> Result<Inspection, Error> {
    let manifest = image.manifest()?;
    let mut differences = Differences::default();
    if manifest.format != FORMAT {
        differences.add(MANIFEST, "format", &manifest.format, FORMAT);
    }
    let listed = image.list()?;
    presence(&manifest, &listed, &mut differences);
    let mut parts = BTreeMap::new();
    let mut initrd = Vec::new();
    for path in listed.keys().filter(|path| *path != MANIFEST && listed.get(*path) == Some(&Kind::File)) {
        let bytes = image.file(path)?;
        let got = Content::of(&bytes);
        if let Some(want) = manifest.parts.get(path) {
            content(path, &got, want, &mut differences);
        }
        match path.as_str() {
            "initrd" => match archive::entries(&bytes) {
                Ok(entries) => initrd = entries,
                Err(e) => differences.add("initrd", "content", e, "an archive as this version writes it"),
            },
            "cmdline" if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
                differences.add(
                    "cmdline",
                    "content",
                    "a newline, or what is not printable ASCII",
                    "printable ASCII",
                );
            }
            _ => {}
        }
        parts.insert(path.clone(), got);
    }
    entries(&initrd, &manifest.initrd, &mut differences);
    Ok(Inspection { manifest, parts, initrd, differences: differences.0 })
}

#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, file: &str, what: &'static str, got: impl ToString, want: impl ToString) {
        self.0.push(Difference { file: file.to_owned(), what, got: got.to_string(), want: want.to_string() });
    }
}

/// Files of the directory, of the manifest, and those that every image has.
fn presence(manifest: &Manifest, listed: &BTreeMap<String, Kind>, differences: &mut Differences) {
    for (path, kind) in listed.iter().filter(|(path, _)| *path != MANIFEST) {
        if *kind == Kind::Other {
            differences.add(path, "presence", "a link or a special file", "a file");
        } else if !manifest.parts.contains_key(path) {
            differences.add(path, "presence", "an extra file", "no such file");
        }
    }
    let wanted: BTreeSet<&str> = manifest.parts.keys().map(String::as_str).chain(PARTS).collect();
    for path in wanted {
        if !listed.contains_key(path) {
            differences.add(path, "presence", "missing", "a file");
        }
    }
}

fn content(file: &str, got: &Content, want: &Content, differences: &mut Differences) {
    if got.size != want.size {
        differences.add(file, "size", got.size, want.size);
    }
    if got.sha256 != want.sha256 {
        differences.add(file, "sha256", got.sha256, want.sha256);
    }
}

/// The initramfs entry by entry.
fn entries(got: &[Entry], want: &[Entry], differences: &mut Differences) {
    let by_path = |entries: &[Entry]| -> BTreeMap<String, Entry> {
        entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let (got_by_path, want_by_path) = (by_path(got), by_path(want));
    for (path, want) in &want_by_path {
        let file = format!("initrd:{path}");
        let Some(got) = got_by_path.get(path) else {
            differences.add(&file, "presence", "missing", "an entry");
            continue;
        };
        if got.mode != want.mode {
            differences.add(&file, "mode", &got.mode, &want.mode);
        }
        match (&got.content, &want.content) {
            (Some(got), Some(want)) => content(&file, got, want, differences),
            (None, None) => {}
            (Some(_), None) => differences.add(&file, "content", "some", "none"),
            (None, Some(_)) => differences.add(&file, "content", "none", "some"),
        }
    }
    for path in got_by_path.keys().filter(|path| !want_by_path.contains_key(*path)) {
        differences.add(&format!("initrd:{path}"), "presence", "an extra entry", "no such entry");
    }
    let order = |entries: &[Entry]| entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    if got_by_path.keys().eq(want_by_path.keys()) && order(got) != order(want) {
        differences.add(
            MANIFEST,
            "order",
            "entries of the initrd in another order or twice",
            "the order of the initrd",
        );
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::image::directory::read;
    use crate::image::manifest::{Profile, Tool};
    use crate::image::newc::Initramfs;

    fn initramfs(init: &[u8]) -> Vec<u8> {
        let mut image = Initramfs::new();
        image.file("init", 0o555, init.to_vec());
        image.device("dev/console", 0o600, (5, 1));
        image.encode().unwrap()
    }

    /// A whole image that is as its manifest says.
    pub(crate) fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let initrd = initramfs(b"enclave");
        let contents: [&[u8]; 5] = [b"kernel", &initrd, b"console=ttyS0", b"snp firmware", b"tdx firmware"];
        for folder in ["snp", "tdx"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (path, content) in PARTS.iter().zip(contents) {
            std::fs::write(dir.path().join(path), content).unwrap();
        }
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            profile: Profile::Cpu,
            simulated: false,
            config: cocoon_attestation::Digest([0; 32]),
            parts: PARTS.iter().zip(contents).map(|(path, c)| ((*path).to_owned(), Content::of(c))).collect(),
            initrd: archive::entries(&initrd).unwrap(),
            inputs: Vec::new(),
            lock: cocoon_attestation::Digest::of(b"lock"),
            toolchain: Vec::new(),
            not_locked: Vec::new(),
        };
        write_manifest(dir.path(), &manifest);
        dir
    }

    pub(crate) fn write_manifest(dir: &Path, manifest: &Manifest) {
        std::fs::write(dir.join(MANIFEST), serde_json::to_vec_pretty(manifest).unwrap()).unwrap();
    }

    /// The differences of an image to which this was done.
    fn after(change: impl Fn(&Path)) -> Vec<(String, &'static str, String)> {
        let dir = image();
        change(dir.path());
        let found = verify(&Directory::new(dir.path())).unwrap();
        found
            .differences
            .into_iter()
            .map(|d| (d.file, d.what, format!("{}, not {}", d.got, d.want)))
            .collect()
    }

    fn after_editing(change: impl Fn(&mut Manifest)) -> Vec<(String, &'static str, String)> {
        after(|dir| {
            let mut manifest = Directory::new(dir).manifest().unwrap();
            change(&mut manifest);
            write_manifest(dir, &manifest);
        })
    }

    fn names(differences: &[(String, &'static str, String)]) -> Vec<String> {
        differences.iter().map(|(file, what, _)| format!("{file} {what}")).collect()
    }

    #[test]
    fn a_good_image_has_no_differences() {
        let dir = image();
        let found = verify(&Directory::new(dir.path())).unwrap();
        assert_eq!(found.differences, []);
        assert_eq!(found.parts.len(), 5);
        assert_eq!(found.initrd.len(), 3);
        let sizes = PARTS.map(|path| read(&dir.path().join(path), 1 << 20).unwrap().len() as u64);
        assert_eq!(found.size(), sizes.iter().sum::<u64>());
        let mut manifest = found.manifest.clone();
        let tool = |name: &str, locked| Tool {
            name: name.to_owned(),
            package: "p 1".to_owned(),
            sha256: cocoon_attestation::Digest::of(b""),
            locked,
        };
        manifest.toolchain = vec![tool("rustc", false), tool("cc1", true)];
        write_manifest(dir.path(), &manifest);
        let found = verify(&Directory::new(dir.path())).unwrap();
        assert_eq!(found.tools_not_locked().collect::<Vec<_>>(), ["rustc"]);
    }

    #[test]
    fn every_changed_byte_of_a_part_is_named() {
        for path in PARTS {
            let found = after(|dir| {
                let mut bytes = std::fs::read(dir.join(path)).unwrap();
                bytes[0] ^= 1;
                std::fs::write(dir.join(path), bytes).unwrap();
            });
            assert!(names(&found).contains(&format!("{path} sha256")), "{path}: {found:?}");
        }
        let longer = after(|dir| std::fs::write(dir.join("vmlinuz"), b"kernel2").unwrap());
        assert_eq!(names(&longer), ["vmlinuz size", "vmlinuz sha256"]);
        assert_eq!(longer[0].2, "7, not 6");
    }

    #[test]
    fn extra_missing_and_special_files_are_named() {
        assert_eq!(names(&after(|dir| std::fs::write(dir.join("x"), b"").unwrap())), ["x presence"]);
        assert_eq!(
            names(&after(|dir| std::fs::remove_file(dir.join(TDX_FIRMWARE)).unwrap())),
            ["tdx/OVMF.fd presence"]
        );
        let link = after(|dir| {
            std::fs::remove_file(dir.join("vmlinuz")).unwrap();
            std::os::unix::fs::symlink("initrd", dir.join("vmlinuz")).unwrap();
        });
        assert_eq!(
            link,
            [("vmlinuz".to_owned(), "presence", "a link or a special file, not a file".to_owned())]
        );
        // A manifest that leaves a part out does not make it optional.
        let fewer = after_editing(|manifest| {
            manifest.parts.remove("cmdline");
        });
        assert_eq!(names(&fewer), ["cmdline presence"]);
        let neither = after(|dir| {
            let mut manifest = Directory::new(dir).manifest().unwrap();
            manifest.parts.remove(SNP_FIRMWARE);
            write_manifest(dir, &manifest);
            std::fs::remove_file(dir.join(SNP_FIRMWARE)).unwrap();
        });
        assert_eq!(names(&neither), ["snp/OVMF.amdsev.fd presence"]);
    }

    #[test]
    fn the_initramfs_is_compared_entry_by_entry() {
        let other = after(|dir| std::fs::write(dir.join("initrd"), initramfs(b"Enclave")).unwrap());
        assert_eq!(names(&other), ["initrd sha256", "initrd:init sha256"]);
        let none = after(|dir| std::fs::write(dir.join("initrd"), b"gzip").unwrap());
        assert!(names(&none).contains(&"initrd content".to_owned()), "{none:?}");
        assert_eq!(names(&after_editing(|m| m.initrd[0].mode = "0040777".into())), ["initrd:dev mode"]);
        assert_eq!(
            names(&after_editing(|m| m.initrd[2].path = "Init".into())),
            ["initrd:Init presence", "initrd:init presence"]
        );
        assert_eq!(names(&after_editing(|m| m.initrd[2].content = None)), ["initrd:init content"]);
        assert_eq!(
            names(&after_editing(|m| m.initrd[0].content = Some(Content::of(b"")))),
            ["initrd:dev content"]
        );
        assert_eq!(names(&after_editing(|m| m.initrd.swap(0, 1))), ["manifest.json order"]);
        assert_eq!(names(&after_editing(|m| m.format = "cocoon-image/2".into())), ["manifest.json format"]);
    }

    #[test]
    fn command_lines_that_would_be_misread_are_named() {
        let found = after(|dir| std::fs::write(dir.join("cmdline"), b"console=ttyS0\n").unwrap());
        assert_eq!(names(&found), ["cmdline size", "cmdline sha256", "cmdline content"]);
    }

    #[test]
    fn what_has_no_manifest_cannot_be_told() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!verify(&Directory::new(dir.path())).unwrap_err().is_rejection());
        std::fs::write(dir.path().join(MANIFEST), b"{}").unwrap();
        assert!(verify(&Directory::new(dir.path())).unwrap_err().is_rejection());
    }
}
