//! What is in an initramfs: the `newc` format, read strictly.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. There is one way to write a given content
//! ([`super::newc`]); anything else is refused. So nothing hides between entries, behind the end or in fields that are not shown, and
//! what is listed is what the kernel unpacks.

use super::Error;
use super::manifest::{Content, Entry};
use super::newc::Initramfs;

const MAGIC: &[u8] = b"070701";
/// The magic and thirteen fields of eight digits.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// The only device that an image has: where the kernel writes before `/dev` is mounted. A manifest does not name numbers.
const CONSOLE: (&str, (u32, u32)) = ("dev/console", (5, 1));
/// An image has some dozen; one with NVIDIA's libraries some hundred.
const MAX_ENTRIES: usize = 10_000;
/// Linux' `PATH_MAX`.
const MAX_PATH: usize = 4096;

const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

/// The entries of `archive` in their order.
///
/// # Errors
/// [`Error::Package`] for anything that is not exactly what [`Initramfs::encode`] writes for some content.
pub fn entries(archive: &[u8]) -> Result<Vec<Entry>, Error> {
    let wrong = |why: String| Error::package("initrd", why);
    let mut content = Initramfs::new();
    let mut entries = Vec::new();
    let mut rest = archive;
    loop {
        let at = archive.len().saturating_sub(rest.len());
        let node = node(&mut rest).ok_or_else(|| wrong(format!("no entry in newc format at byte {at}")))?;
        if node.path == TRAILER {
            break;
        }
        if entries.len() >= MAX_ENTRIES {
            return Err(wrong(format!("more than {MAX_ENTRIES} entries")));
        }
        check_path(node.path).map_err(|why| wrong(format!("path {:?} {why}", node.path)))?;
        let permissions = node.mode & !KIND;
        match node.mode & KIND {
            FOLDER => content.folder(node.path, permissions),
            FILE => content.file(node.path, permissions, node.content.to_vec()),
            DEVICE if (node.path, node.number) == CONSOLE => {
                content.device(node.path, permissions, node.number)
            }
            _ => return Err(wrong(format!("{} is neither file, folder nor dev/console (5, 1)", node.path))),
        }
        entries.push(Entry {
            path: node.path.to_owned(),
            mode: format!("{:07o}", node.mode),
            content: (node.mode & KIND == FILE).then(|| Content::of(node.content)),
        });
    }
    if let Some(at) = first_difference(archive, &content.encode().unwrap_or_default()) {
        return Err(wrong(format!(
            "byte {at} is not what the content makes of it: order, owner, time, links, inodes or padding were changed, or something \
             is behind its end"
        )));
    }
    Ok(entries)
}

fn first_difference(got: &[u8], want: &[u8]) -> Option<usize> {
    let differs = got.iter().zip(want).position(|(got, want)| got != want);
    differs.or_else(|| (got.len() != want.len()).then(|| got.len().min(want.len())))
}

struct Node<'a> {
    mode: u32,
    number: (u32, u32),
    path: &'a str,
    content: &'a [u8],
}

/// The entry at the start of `rest`, which goes on behind it.
fn node<'a>(rest: &mut &'a [u8]) -> Option<Node<'a>> {
    let (header, behind) = rest.split_at_checked(HEADER)?;
    let fields = header.strip_prefix(MAGIC)?;
    let field = |index: usize| {
        let digits = std::str::from_utf8(fields.get(index.checked_mul(8)?..)?.get(..8)?).ok()?;
        // `from_str_radix` takes a sign.
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let size = |index| usize::try_from(field(index)?).ok();
    let path_len = size(11).filter(|len| (1..=MAX_PATH).contains(len))?;
    let (path, behind) = behind.split_at_checked(path_len)?;
    let path = std::str::from_utf8(path.strip_suffix(&[0])?).ok()?;
    let behind = behind.get(padding(HEADER + path_len)..)?;
    let (content, behind) = behind.split_at_checked(size(6)?)?;
    *rest = behind.get(padding(content.len())..)?;
    Some(Node { mode: field(1)?, number: (field(9)?, field(10)?), path, content })
}

/// Zero bytes up to a multiple of four.
fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("is not a plain path");
    }
    if path.chars().any(char::is_control) {
        return Err("has control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Initramfs {
        let mut image = Initramfs::new();
        image.file("init", 0o555, b"#!x".to_vec());
        image.device("dev/console", 0o600, (5, 1));
        image.folder("proc", 0o555);
        image
    }

    fn refused(bytes: &[u8]) -> String {
        entries(bytes).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_we_write() {
        let listed = entries(&sample().encode().unwrap()).unwrap();
        let lines: Vec<_> = listed.iter().map(|e| (e.path.as_str(), e.mode.as_str(), e.content)).collect();
        let want = [
            ("dev", "0040555", None),
            ("dev/console", "0020600", None),
            ("init", "0100555", Some(Content::of(b"#!x"))),
            ("proc", "0040555", None),
        ];
        assert_eq!(lines, want);
        assert_eq!(entries(&Initramfs::new().encode().unwrap()).unwrap(), []);
    }

    /// Every single change of a byte is seen: in the content by its digest, elsewhere as an error or another entry.
    #[test]
    fn nothing_can_be_changed_unseen() {
        let good = sample().encode().unwrap();
        let listed = entries(&good).unwrap();
        for at in 0..good.len() {
            for flip in [1, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                assert_ne!(entries(&bad).ok().as_ref(), Some(&listed), "byte {at}");
            }
            assert!(entries(&good[..at]).is_err(), "cut to {at}");
        }
        let mut longer = good.clone();
        longer.extend_from_slice(&good);
        assert!(refused(&longer).contains("behind its end"));
        longer.truncate(good.len());
        longer.extend_from_slice(&[0; 4]);
        assert!(refused(&longer).contains("behind its end"));
    }

    #[test]
    fn other_ways_to_write_the_same_are_refused() {
        let good = sample().encode().unwrap();
        let with = |from: &str, to: &str| {
            let text: String = good.iter().copied().map(char::from).collect();
            assert!(text.contains(from), "{from}");
            refused(&text.replacen(from, to, 1).chars().map(|c| u8::try_from(c).unwrap()).collect::<Vec<_>>())
        };
        assert!(with("070701", "070702").contains("no entry in newc format at byte 0"));
        assert!(with("init\0", "/nit\0").contains("not a plain path"));
        assert!(with("init\0", "in\nt\0").contains("control characters"));
        assert!(with("000081", "0000a1").contains("init is neither file, folder nor dev/console (5, 1)"));
        assert!(with("000041", "0000+1").contains("no entry in newc format"));
        assert!(with("dev/console\0", "dev/console/").contains("no entry in newc format"));
        assert!(with("dev\0", "dez\0").contains("is not what the content makes of it"));
        let mut image = sample();
        image.device("dev/mem", 0o600, (1, 1));
        assert!(refused(&image.encode().unwrap()).contains("dev/mem is neither"));
        let many = |count: usize| {
            let mut image = Initramfs::new();
            (0..count).for_each(|n| image.folder(&format!("{n:05}"), 0o555));
            entries(&image.encode().unwrap())
        };
        assert_eq!(many(MAX_ENTRIES).unwrap().len(), MAX_ENTRIES);
        assert!(many(MAX_ENTRIES + 1).unwrap_err().to_string().contains("more than 10000 entries"));
        let long = |len: usize| {
            let mut image = Initramfs::new();
            image.folder(&"a".repeat(len), 0o555);
            entries(&image.encode().unwrap())
        };
        assert!(long(MAX_PATH - 1).is_ok() && long(MAX_PATH).is_err());
    }
}
