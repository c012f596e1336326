//! From a mirror's index to a new lock file: which version of each package there is now.
//!
//! Source: Debian wiki, "RepositoryFormat", Packages indices. The index is not verified: what comes of it is a change of a file under
//! version control, which people look at, and what it names is rebuilt and compared by others.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Read;

use cocoon_attestation::Digest;
use lzma_rust2::XzReader;

use super::Error;
use super::lock::{Lock, Package};
use super::store::fetch;

/// The index of a whole suite has 9 MB, 50 MB when unpacked.
const MAX_INDEX: u64 = 64 << 20;
const MAX_UNPACKED: u64 = 512 << 20;

/// What of a kernel's name stays the same from version to version.
const KERNEL: (&str, &str) = ("linux-image-", "-cloud-amd64-unsigned");

/// The packages of `lock` as `mirrors` have them now, in the same order.
///
/// # Errors
/// [`Error::Missing`] if no mirror has the index of a suite or a package in it.
pub fn current(lock: &Lock, mirrors: &[String]) -> Result<Vec<Package>, Error> {
    let mut indices = BTreeMap::new();
    let mut out = Vec::new();
    for package in &lock.packages {
        if !indices.contains_key(&package.suite) {
            indices.insert(package.suite.clone(), index(&package.suite, mirrors)?);
        }
        let text = indices.get(&package.suite).map(String::as_str).unwrap_or_default();
        let found = newest(text, package).ok_or_else(|| Error::Missing {
            file: package.name.clone(),
            looked: format!("the index of {}", package.suite),
        })?;
        out.push(found);
    }
    Ok(out)
}

/// `text`, a lock file, with other packages in the place of its own.
#[must_use]
pub fn rewritten(text: &str, old: &[Package], new: &[Package]) -> String {
    old.iter()
        .zip(new)
        .fold(text.to_owned(), |text, (old, new)| text.replace(&old.to_string(), &new.to_string()))
}

fn index(suite: &str, mirrors: &[String]) -> Result<String, Error> {
    let path = format!("dists/{suite}/main/binary-amd64/Packages.xz");
    let mut looked = Vec::new();
    for mirror in mirrors {
        let url = format!("{}/{path}", mirror.trim_end_matches('/'));
        match fetch(&url, MAX_INDEX) {
            Ok(bytes) => return unpack(&url, &bytes),
            Err(why) => looked.push(format!("{url}: {why}")),
        }
    }
    let looked = if looked.is_empty() { "no mirror was given".to_owned() } else { looked.join(", ") };
    Err(Error::Missing { file: path, looked })
}

fn unpack(url: &str, bytes: &[u8]) -> Result<String, Error> {
    let mut text = String::new();
    let unpacked = XzReader::new(bytes, false).take(MAX_UNPACKED).read_to_string(&mut text);
    unpacked.map_err(|e| Error::package(url, format!("is no index: {e}")))?;
    Ok(text)
}

/// The newest package that is `like` another one.
fn newest(index: &str, like: &Package) -> Option<Package> {
    let stanzas = index.split("\n\n").filter_map(|stanza| package(stanza, &like.suite));
    stanzas
        .filter(|package| is_like(&package.name, &like.name))
        .max_by(|a, b| compare(&a.version, &b.version))
}

fn is_like(name: &str, like: &str) -> bool {
    let (before, behind) = KERNEL;
    let is_kernel = |name: &str| name.starts_with(before) && name.ends_with(behind);
    name == like || (is_kernel(name) && is_kernel(like))
}

fn package(stanza: &str, suite: &str) -> Option<Package> {
    let field = |key: &str| {
        stanza.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::to_owned)
    };
    let sha256 = field("SHA256").and_then(|hex| hex.parse::<Digest>().ok())?;
    Some(Package {
        name: field("Package")?,
        version: field("Version")?,
        suite: suite.to_owned(),
        path: field("Filename")?,
        size: field("Size")?.parse().ok()?,
        sha256,
    })
}

/// Versions in the order of deb-version(7), as far as packages of one name have them: numbers as numbers, the rest as text, `~` first.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let texts = text_a.replace('~', "\0").cmp(&text_b.replace('~', "\0"));
        let (digits_a, end_a) = split(rest_a, |c| c.is_ascii_digit());
        let (digits_b, end_b) = split(rest_b, |c| c.is_ascii_digit());
        let number = |digits: &str| digits.parse::<u128>().unwrap_or(0);
        let order = texts.then_with(|| number(digits_a).cmp(&number(digits_b)));
        if order != Ordering::Equal || (end_a.is_empty() && end_b.is_empty()) {
            return order;
        }
        (a, b) = (end_a, end_b);
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LOCK: &str = include_str!("../../inputs.lock");

    fn stanza(name: &str, version: &str) -> String {
        let sha256 = "ab".repeat(32);
        format!(
            "Package: {name}\nVersion: {version}\nFilename: pool/{name}_{version}.deb\nSize: 7\nSHA256: {sha256}\n"
        )
    }

    #[test]
    fn the_newest_of_each_is_locked() {
        let lock = Lock::parse(LOCK, Path::new("inputs.lock")).unwrap();
        let kernel = lock.package("linux-image-").unwrap();
        let index = [
            stanza("linux-image-6.12.9+deb13-cloud-amd64-unsigned", "6.12.9-1"),
            stanza("linux-image-6.12.120+deb13-cloud-amd64-unsigned", "6.12.120-1"),
            stanza("linux-image-6.13.0+deb13-amd64-unsigned", "6.13.0-1"),
            "Package: broken\n".to_owned(),
        ]
        .join("\n");
        let found = newest(&index, kernel).unwrap();
        assert_eq!(found.version, "6.12.120-1");
        assert_eq!(newest(&index, lock.package("ovmf").unwrap()), None);
        let new: Vec<_> = lock
            .packages
            .iter()
            .map(|package| if package == kernel { found.clone() } else { package.clone() })
            .collect();
        let text = rewritten(LOCK, &lock.packages, &new);
        let read = Lock::parse(&text, Path::new("inputs.lock")).unwrap();
        assert_eq!((read.packages, read.tools), (new, lock.tools.clone()));
        assert_ne!(read.digest, lock.digest);
    }

    #[test]
    fn versions_have_debians_order() {
        for (less, more) in [
            ("6.12.9-1", "6.12.120-1"),
            ("2026.02~rc1+ds-1", "2026.02+ds-1"),
            ("2025.02-8", "2025.02-8+deb13u1"),
            ("1:1.0", "2:0.9"),
        ] {
            assert_eq!(
                (compare(less, more), compare(more, less)),
                (Ordering::Less, Ordering::Greater),
                "{less}"
            );
        }
        assert_eq!(compare("1.2-3", "1.2-3"), Ordering::Equal);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        assert!(unpack("u", b"odd").unwrap_err().to_string().contains("u: is no index"));
        let lock = Lock::parse(LOCK, Path::new("inputs.lock")).unwrap();
        assert!(current(&lock, &[]).unwrap_err().to_string().contains("no mirror was given"));
    }
}
