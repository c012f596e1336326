//! A folder of a model in one file or on a disk: a tar archive (POSIX.1-1988 ustar, or as GNU tar writes it). What is in it is the model,
//! so its digest is that of the folder, whoever packs it.

use crate::huggingface::is_part;
use crate::model_file::{MAX_FILES, MAX_TEXT_BYTES};
use ring::digest::{Context, SHA256};
use std::io::Read;

/// Headers, and contents, come in blocks of so many bytes.
pub(crate) const BLOCK: usize = 512;
/// Files and folders in an archive.
const MAX_ENTRIES: usize = 2048;
const CHUNK: usize = 1 << 20;

/// Where things are in a header.
mod field {
    use std::ops::Range;
    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const KIND: usize = 156;
    pub(super) const MAGIC: Range<usize> = 257..263;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

/// Why an archive is refused.
#[derive(Debug)]
pub(crate) enum Problem {
    Unreadable(std::io::Error),
    /// What is wrong with it, and what to do.
    Malformed(String),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return bad("it is cut off; make it again");
        }
        Self::Unreadable(error)
    }
}

fn bad(problem: &str) -> Problem {
    Problem::Malformed(problem.to_owned())
}

/// A file of an archive: its name, its content, and its SHA-256.
pub(crate) type Entry = (String, Vec<u8>, ring::digest::Digest);

/// Whether a file that begins like this is an archive.
pub(crate) fn is_archive(first: &[u8]) -> bool {
    first.get(field::MAGIC).is_some_and(|magic| magic.starts_with(b"ustar"))
}

/// The files of a model in an archive of `len` bytes, sorted by name; what else is in it is passed over. `progress` hears how many bytes
/// were read.
pub(crate) fn read(
    archive: &mut impl Read,
    len: u64,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Entry>, Problem> {
    let (mut files, mut done): (Vec<Entry>, u64) = (Vec::new(), 0);
    for _ in 0..=MAX_ENTRIES {
        let mut header = [0; BLOCK];
        archive.read_exact(&mut header)?;
        done += BLOCK as u64;
        if header.iter().all(|byte| *byte == 0) {
            files.sort_by(|a, b| a.0.cmp(&b.0));
            let twice = files.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0));
            return if twice { Err(bad("a file is in it twice")) } else { Ok(files) };
        }
        let (name, size) = parse(&header)?;
        let padded =
            size.checked_next_multiple_of(BLOCK as u64).filter(|size| *size <= len.saturating_sub(done));
        let padded = padded.ok_or_else(|| bad("it is cut off; make it again"))?;
        let wanted = name.filter(|name| is_part(name));
        if let Some(name) = &wanted
            && size > MAX_TEXT_BYTES
            && !name.ends_with(".safetensors")
        {
            return Err(bad(&format!("{size} bytes are too many for {name}")));
        }
        let kept = if wanted.is_some() { size } else { 0 };
        let (content, hash) = content(archive, (kept, padded), |read| progress(done + read))?;
        done += padded;
        files.extend(wanted.map(|name| (name, content, hash)));
        if files.len() > MAX_FILES {
            return Err(bad(&format!("it has more than {MAX_FILES} files of a model")));
        }
    }
    Err(bad(&format!("it has more than {MAX_ENTRIES} files")))
}

/// Reads `padded` bytes, of which the first `kept` are wanted.
fn content(
    archive: &mut impl Read,
    (kept, padded): (u64, u64),
    mut progress: impl FnMut(u64),
) -> Result<(Vec<u8>, ring::digest::Digest), Problem> {
    let (mut content, mut hash) = (Vec::new(), Context::new(&SHA256));
    let room = usize::try_from(kept).ok().filter(|size| content.try_reserve_exact(*size).is_ok());
    let kept = room.ok_or_else(|| bad("it does not fit into memory"))?;
    let mut chunk = vec![0; CHUNK.min(usize::try_from(padded).unwrap_or(CHUNK))];
    let mut read = 0;
    while read < padded {
        let now = chunk.len().min(usize::try_from(padded - read).unwrap_or(chunk.len()));
        let (piece, _) = chunk.split_at_mut(now);
        archive.read_exact(piece)?;
        let (piece, _not_wanted) = piece.split_at(now.min(kept - content.len()));
        hash.update(piece);
        content.extend_from_slice(piece);
        read += now as u64;
        progress(read);
    }
    Ok((content, hash.finish()))
}

/// The name of a file that is not in another folder, and the bytes behind the header.
fn parse(header: &[u8; BLOCK]) -> Result<(Option<String>, u64), Problem> {
    let field = |range: std::ops::Range<usize>| header.get(range).unwrap_or_default();
    if !is_archive(header) || Some(sum(header)) != octal(field(field::CHECKSUM)) {
        return Err(bad("a header in it is damaged; make it again"));
    }
    let size = number(field(field::SIZE)).ok_or_else(|| bad("a size in it is none"))?;
    match header.get(field::KIND) {
        Some(b'0' | 0) => {}
        Some(b'5') => return Ok((None, size)),
        Some(b'x' | b'g' | b'L' | b'K') => {
            return Err(bad(
                "it has extended headers; make it with `tar --format=ustar`, or --format=gnu for files over 8 GiB",
            ));
        }
        _ => {
            return Err(bad(
                "it holds a link or something else that is no file; make it with `tar --dereference`",
            ));
        }
    }
    // GNU tar has other things where POSIX has the beginning of a long name.
    let is_posix = field(field::MAGIC).ends_with(&[0]);
    if is_posix && !text(field(field::PREFIX)).is_some_and(str::is_empty) {
        return Ok((None, size));
    }
    let name = text(field(field::NAME)).ok_or_else(|| bad("a name in it is no text"))?;
    let name = name.strip_prefix("./").unwrap_or(name);
    Ok(((!name.contains('/')).then(|| name.to_owned()), size))
}

/// Up to the first zero.
fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field.split(|byte| *byte == 0).next().unwrap_or_default()).ok()
}

/// In octal, or where that is too small in base 256 with the first bit set.
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((0x80, rest)) => {
            rest.iter().try_fold(0_u64, |n, byte| n.checked_mul(256)?.checked_add((*byte).into()))
        }
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim_matches(' ');
    if digits.is_empty() { None } else { u64::from_str_radix(digits, 8).ok() }
}

/// Of all bytes, those of the sum itself counted as spaces.
fn sum(header: &[u8; BLOCK]) -> u64 {
    let byte = |(n, byte): (usize, &u8)| {
        if field::CHECKSUM.contains(&n) { u64::from(b' ') } else { u64::from(*byte) }
    };
    header.iter().enumerate().map(byte).sum()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn header(name: &str, size: &str, kind: u8, posix: bool) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..124 + size.len()].copy_from_slice(size.as_bytes());
        header[field::KIND] = kind;
        header[field::MAGIC].copy_from_slice(if posix { b"ustar\0" } else { b"ustar " });
        seal(&mut header);
        header
    }

    fn seal(header: &mut [u8; BLOCK]) {
        let text = format!("{:06o}\0 ", sum(header));
        header[field::CHECKSUM].copy_from_slice(text.as_bytes());
    }

    /// As `tar -cf - -C DIR .` writes it.
    pub(crate) fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = header("./", "00000000000", b'5', true).to_vec();
        for (name, content) in files {
            archive.extend(header(name, &format!("{:011o}", content.len()), b'0', true));
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }

    fn names(archive: &[u8]) -> Result<Vec<String>, String> {
        match read(&mut &*archive, archive.len() as u64, |_| ()) {
            Ok(files) => Ok(files.into_iter().map(|(name, ..)| name).collect()),
            Err(Problem::Malformed(problem)) => Err(problem),
            Err(Problem::Unreadable(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn files_of_a_model_are_read_and_others_passed_over() {
        let long = vec![7; 1300];
        let archive = pack(&[
            ("./model.safetensors", &long),
            ("README.md", b"x"),
            ("config.json", b"{}"),
            ("a/config.json", b"y"),
        ]);
        assert!(is_archive(&archive));
        let mut seen = Vec::new();
        let files = read(&mut &*archive, archive.len() as u64, |done| seen.push(done)).unwrap();
        let all: Vec<_> =
            files.iter().map(|(name, content, _)| (name.as_str(), content.as_slice())).collect();
        assert_eq!(all, [("config.json", &b"{}"[..]), ("model.safetensors", &long)]);
        let digest = ring::digest::digest(&SHA256, &long);
        assert_eq!(files[1].2.as_ref(), digest.as_ref());
        assert!(seen.is_sorted() && *seen.last().unwrap() == archive.len() as u64 - 1024);
    }

    #[test]
    fn what_is_no_plain_archive_is_refused() {
        let good = pack(&[("config.json", b"{}")]);
        assert_eq!(names(&good).unwrap(), ["config.json"]);
        for end in [0, 511, BLOCK, 2 * BLOCK, 2 * BLOCK + 3, 3 * BLOCK] {
            assert!(names(&good[..end]).unwrap_err().contains("cut off"), "{end}");
        }
        let mut damaged = good.clone();
        damaged[BLOCK] ^= 1;
        assert!(names(&damaged).unwrap_err().contains("damaged"));
        assert!(
            names(&pack(&[("config.json", b"a"), ("./config.json", b"b")])).unwrap_err().contains("twice")
        );
        let with = |header: [u8; BLOCK]| names(&[&header[..], &[0; 1024]].concat());
        for (kind, problem) in [
            (b'x', "--format=ustar"),
            (b'L', "--format=ustar"),
            (b'2', "--dereference"),
            (b'S', "--dereference"),
        ] {
            assert!(with(header("config.json", "00000000000", kind, true)).unwrap_err().contains(problem));
        }
        for size in ["", "9", "zz", "-1"] {
            assert!(with(header("config.json", size, b'0', true)).unwrap_err().contains("size"), "{size}");
        }
        assert!(with(header("config.json", "77777777777", b'0', true)).unwrap_err().contains("cut off"));
        let mut huge = header("config.json", "", b'0', true);
        huge[field::SIZE]
            .copy_from_slice(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        seal(&mut huge);
        assert!(with(huge).unwrap_err().contains("size"));
        assert!(
            names(&header("a", "0", b'0', true).repeat(MAX_ENTRIES + 2))
                .unwrap_err()
                .contains("more than 2048")
        );
        let shard = |n: usize| header(&format!("model-{n:05}-of-99999.safetensors"), "0", b'0', true);
        let shards =
            |count| names(&[(0..count).flat_map(shard).collect::<Vec<u8>>(), vec![0; 1024]].concat());
        assert_eq!(shards(MAX_FILES).unwrap().len(), MAX_FILES);
        assert!(shards(MAX_FILES + 1).unwrap_err().contains("more than 1024 files of a model"));
        let mut not_text = header("a", "0", b'0', true);
        not_text[0] = 0xff;
        seal(&mut not_text);
        assert!(with(not_text).unwrap_err().contains("no text"));
    }

    /// GNU tar writes large sizes in base 256, and has no beginnings of names.
    #[test]
    fn archives_of_gnu_tar_are_read() {
        let mut gnu = header("config.json", "", b'0', false);
        gnu[field::SIZE].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        gnu[field::PREFIX][0] = b'7';
        seal(&mut gnu);
        let mut archive = [&gnu[..], b"{}"].concat();
        archive.resize(4 * BLOCK, 0);
        assert_eq!(names(&archive).unwrap(), ["config.json"]);
        // In a POSIX archive the same field is a folder.
        gnu[field::MAGIC].copy_from_slice(b"ustar\0");
        seal(&mut gnu);
        archive[..BLOCK].copy_from_slice(&gnu);
        assert!(names(&archive).unwrap().is_empty());
    }
}
