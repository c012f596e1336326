//! An initramfs in the `newc` format, the same bytes for the same content.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. Paths are sorted, owner is root, time is zero, inodes
//! are numbered from one in the order of the paths, and folders are made before what lies in them.

use std::collections::BTreeMap;

use super::manifest::{Content, Entry};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder {
        mode: u32,
    },
    File {
        mode: u32,
        content: Vec<u8>,
    },
    /// A character device by major and minor number.
    Device {
        mode: u32,
        number: (u32, u32),
    },
}

/// What is in the initramfs, by path without a leading slash.
#[derive(Clone, Debug, Default)]
pub struct Initramfs(BTreeMap<String, Node>);

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

impl Initramfs {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::Folder { mode });
    }

    /// Adds a file, and the folders above it.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::File { mode, content });
    }

    /// Adds a character device, and the folders above it.
    pub fn device(&mut self, path: &str, mode: u32, number: (u32, u32)) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::Device { mode, number });
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let above = path.split_at(end).0;
            self.0.entry(above.to_owned()).or_insert(Node::Folder { mode: 0o555 });
        }
    }

    /// What is in it, for the manifest.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |(path, node): (&String, &Node)| {
            let (mode, content) = match node {
                Node::Folder { mode } => (FOLDER | mode, None),
                Node::File { mode, content } => (FILE | mode, Some(Content::of(content))),
                Node::Device { mode, .. } => (CHARACTER_DEVICE | mode, None),
            };
            Entry { path: path.clone(), mode: format!("{mode:07o}"), content }
        };
        self.0.iter().map(entry).collect()
    }

    /// Paths and contents of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path.as_str(), content.as_slice())),
            Node::Folder { .. } | Node::Device { .. } => None,
        })
    }

    /// The archive; `None` if a file has 4 GiB or more, for which the format has no room.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for (inode, (path, node)) in (1u32..).zip(&self.0) {
            let (mode, links, content, number) = match node {
                Node::Folder { mode } => (FOLDER | mode, 2, &[][..], (0, 0)),
                Node::File { mode, content } => (FILE | mode, 1, content.as_slice(), (0, 0)),
                Node::Device { mode, number } => (CHARACTER_DEVICE | mode, 1, &[][..], *number),
            };
            entry(&mut out, path, [inode, mode, links], content, number)?;
        }
        entry(&mut out, TRAILER, [0, 0, 1], &[], (0, 0))?;
        Some(out)
    }
}

fn entry(
    out: &mut Vec<u8>,
    path: &str,
    [inode, mode, links]: [u32; 3],
    content: &[u8],
    (major, minor): (u32, u32),
) -> Option<()> {
    let size = u32::try_from(content.len()).ok()?;
    let name = u32::try_from(path.len()).ok()?.checked_add(1)?;
    out.extend_from_slice(MAGIC.as_bytes());
    // uid, gid; after the links the time; after the size the device that it lay on; at the end a checksum that `newc` has not.
    for field in [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
    Some(())
}

/// Headers and contents begin at multiples of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Initramfs {
        let mut image = Initramfs::new();
        image.file("lib/b", 0o444, b"bbb".to_vec());
        image.device("dev/console", 0o600, (5, 1));
        image.file("init", 0o555, b"#!".to_vec());
        image.folder("proc", 0o555);
        image
    }

    #[test]
    fn the_order_of_making_does_not_matter() {
        let mut other = Initramfs::new();
        other.folder("proc", 0o555);
        other.file("init", 0o555, b"#!".to_vec());
        other.file("lib/b", 0o444, b"bbb".to_vec());
        other.device("dev/console", 0o600, (5, 1));
        assert_eq!(sample().encode(), other.encode());
        other.file("init", 0o555, b"#?".to_vec());
        assert_ne!(sample().encode(), other.encode());
        let files: Vec<_> = other.files().map(|(path, content)| (path, content.len())).collect();
        assert_eq!(files, [("init", 2), ("lib/b", 3)]);
    }

    /// GNU cpio, where there is one: another reader of the format.
    #[test]
    fn others_read_it() {
        let list = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut list) = list else {
            println!("skipped: no cpio");
            return;
        };
        list.stdin.take().unwrap().write_all(&sample().encode().unwrap()).unwrap();
        let text = String::from_utf8(list.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let of = |name: &str| lines.iter().find(|line| line.last() == Some(&name)).unwrap();
        assert_eq!(of("init")[..5], ["-r-xr-xr-x", "1", "0", "0", "2"]);
        assert_eq!(of("lib")[0], "dr-xr-xr-x");
        assert_eq!(of("dev/console")[..6], ["crw-------", "1", "0", "0", "5,", "1"]);
        assert_eq!(of("lib/b")[4], "3");
    }

    #[test]
    fn alignment_and_trailer() {
        let bytes = sample().encode().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(TRAILER.len()).any(|part| part == TRAILER.as_bytes()));
    }
}
