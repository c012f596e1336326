//! Each thing that may differ is found and named.

mod evidence;
mod snp;
mod tdx;

use std::path::{Path, PathBuf};

use super::command_line::{Edit, words};
use super::material::{MAX_CANDIDATES, Material};
use super::{Explanation, Input};
use crate::image::directory::{Directory, SNP_FIRMWARE, TDX_FIRMWARE};
use crate::predict::Boot;
use crate::predict::tests::{FIRMWARE, KERNEL};

const LINE: &[u8] = b"console=ttyS0 quiet loglevel=1";

/// The image of these tests, and a candidate that differs in everything.
struct Images {
    dir: tempfile::TempDir,
}

/// Another firmware, another kernel.
fn other(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[0x300] ^= 1;
    out
}

impl Images {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("image"), FIRMWARE, &boot());
        let (firmware, kernel) = (other(FIRMWARE), other(KERNEL));
        write(
            &dir.path().join("other"),
            &firmware,
            &Boot { kernel: &kernel, initrd: b"other", command_line: b"debug" },
        );
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn material(&self, firmware: &str, candidates: &[&str]) -> Material {
        let candidates: Vec<_> = candidates.iter().map(|name| self.path(name)).collect();
        Material::read(&Directory::new(&self.path("image")), firmware, &candidates, &[]).unwrap()
    }
}

fn boot() -> Boot<'static> {
    Boot { kernel: KERNEL, initrd: b"initrd", command_line: LINE }
}

fn write(dir: &Path, firmware: &[u8], boot: &Boot<'_>) {
    let files = [
        (SNP_FIRMWARE, firmware),
        (TDX_FIRMWARE, firmware),
        ("vmlinuz", boot.kernel),
        ("initrd", boot.initrd),
        ("cmdline", boot.command_line),
    ];
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

fn inputs(explanation: &Explanation) -> Vec<Input> {
    assert!(explanation.explained, "{explanation:?}");
    explanation.differences.iter().map(|one| one.input).collect()
}

#[test]
fn material_is_read_once_and_within_limits() {
    let images = Images::new();
    let image = Directory::new(&images.path("image"));
    let alone = images.material(SNP_FIRMWARE, &["image"]);
    assert_eq!((alone.firmware.len(), alone.kernels.len(), alone.command_lines.len()), (1, 1, 1));
    assert_eq!(images.material(SNP_FIRMWARE, &["other", "other"]).initrds.len(), 2);
    let read =
        |candidates: &[PathBuf], ovmf: &[PathBuf]| Material::read(&image, SNP_FIRMWARE, candidates, ovmf);
    let many = vec![images.path("other"); MAX_CANDIDATES + 1];
    assert!(read(&many[1..], &[]).is_ok());
    assert!(read(&many, &[]).unwrap_err().to_string().contains("at most 4 are taken at once"));
    assert!(read(&[], &many).is_err());
    // A candidate may lack files, but not all.
    std::fs::remove_file(images.path("other/vmlinuz")).unwrap();
    assert_eq!(read(&many[1..], &[]).unwrap().kernels.len(), 1);
    std::fs::create_dir(images.path("empty")).unwrap();
    assert!(read(&[images.path("empty")], &[]).unwrap_err().to_string().contains("has no vmlinuz"));
    assert!(read(&[], &[images.path("missing")]).is_err());
    std::fs::remove_file(images.path("image/initrd")).unwrap();
    assert!(read(&[], &[]).is_err(), "the image must have all");
}

#[test]
fn every_edit_is_another_line() {
    let line = b"ab";
    let lines: std::collections::BTreeSet<_> = Edit::all(line).map(|edit| edit.apply(line)).collect();
    // 2 x 94 others, 2 shorter, 3 x 95 longer of which inserting a letter before or behind itself is the same.
    assert_eq!(lines.len(), 2 * 94 + 2 + 3 * 95 - 2);
    assert!(!lines.contains(&line[..]));
    assert_eq!(Edit::Insert(9, b'x').apply(line), b"abx");
    let edits = [Edit::Replace(1, b'x'), Edit::Insert(0, b'y'), Edit::Remove(1)].map(|edit| edit.to_string());
    assert_eq!(edits, ["with 'x' at byte 1", "with 'y' more at byte 0", "without byte 1"]);
    let hows: Vec<_> = words(b"a b ", &["c".to_owned()]).into_iter().map(|one| one.how).collect();
    for how in
        ["empty", "with a newline at its end", "without the word \"b\"", "with the word \"c\" at its start"]
    {
        assert!(hows.iter().any(|one| one == how), "{how}");
    }
    assert!(hows.iter().any(|one| one.contains("without white space")));
}
