//! What is inside a Debian package: `ar`, in it `data.tar.xz`.
//!
//! Source: deb(5). Only what the recipe asks for is kept.

use std::collections::BTreeMap;
use std::io::Read;

use lzma_rust2::XzReader;

use super::Error;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;
const DATA: &str = "data.tar.xz";
/// A kernel with its modules unpacks to 150 MB.
const MAX_UNPACKED: u64 = 2 << 30;
/// A kernel package has 1,500.
const MAX_FILES: usize = 100_000;

/// Contents of the files whose path, without a leading `./`, `want` says yes to. `name` is for errors.
///
/// # Errors
/// [`Error::Package`] for what is no such package, or too large.
pub fn extract(
    name: &str,
    package: &[u8],
    want: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let wrong = |why: String| Error::package(name, why);
    let data = member(package, DATA).ok_or_else(|| wrong(format!("is no Debian package with a {DATA}")))?;
    let limited = XzReader::new(data, false).take(MAX_UNPACKED);
    let mut archive = tar::Archive::new(limited);
    let broken = |e: std::io::Error| wrong(format!("{DATA} cannot be unpacked: {e}"));
    let mut files = BTreeMap::new();
    for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
        if index >= MAX_FILES {
            return Err(wrong(format!("{DATA} has more than {MAX_FILES} entries")));
        }
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        if !entry.header().entry_type().is_file() || !want(path) {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        if files.insert(path.to_owned(), content).is_some() {
            return Err(wrong(format!("{DATA} has {path} twice")));
        }
    }
    Ok(files)
}

/// The member `name` of an `ar` archive.
fn member<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = archive.strip_prefix(MAGIC)?;
    loop {
        let (header, behind) = rest.split_at_checked(HEADER)?;
        let field =
            |range: std::ops::Range<usize>| Some(std::str::from_utf8(header.get(range)?).ok()?.trim_end());
        let size: usize = field(48..58)?.parse().ok()?;
        let (content, behind) = behind.split_at_checked(size)?;
        if field(58..60)? != "`" {
            return None;
        }
        if field(0..16)?.trim_end_matches('/') == name {
            return Some(content);
        }
        // Members begin at even places.
        rest = behind.get(size % 2..)?;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use lzma_rust2::{XzOptions, XzWriter};

    use super::*;

    /// A package with these files.
    pub(crate) fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_entry_type(tar::EntryType::Regular);
            archive.append_data(&mut header, format!("./{path}"), *content).unwrap();
        }
        let data = archive.into_inner().unwrap();
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (DATA, &xz(&data))])
    }

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut writer = XzWriter::new(Vec::new(), XzOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (name, content) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
            assert_eq!(header.len(), HEADER);
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(content);
            out.resize(out.len().next_multiple_of(2), b'\n');
        }
        out
    }

    #[test]
    fn gives_what_is_asked_for() {
        let bytes = package(&[("boot/vmlinuz-1", b"kernel"), ("usr/share/doc/x", b"text")]);
        let files = extract("p", &bytes, |path| path.starts_with("boot/")).unwrap();
        assert_eq!(files, BTreeMap::from([("boot/vmlinuz-1".to_owned(), b"kernel".to_vec())]));
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let good = package(&[("a", &[7; 5000])]);
        let refused = |bytes: &[u8]| extract("p.deb", bytes, |_| true).unwrap_err().to_string();
        assert!(refused(b"").contains("p.deb: is no Debian package"));
        assert!(refused(&ar(&[("data.tar.zst", b"x")])).contains("is no Debian package"));
        assert!(refused(&ar(&[(DATA, b"not xz")])).contains("cannot be unpacked"));
        assert!(refused(&ar(&[(DATA, &xz(&[1; 512]))])).contains("cannot be unpacked"));
        let twice = package(&[("a", b"1"), ("a", b"2")]);
        assert!(refused(&twice).contains("has a twice"));
        for len in 0..good.len() {
            assert!(extract("p", &good[..len], |_| true).is_err(), "cut to {len}");
        }
    }
}
