//! Where locked packages come from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cocoon_attestation::Digest;

use super::Error;
use super::lock::Package;

/// How long a mirror may take for one package; the largest has 35 MB.
const DEADLINE: Duration = Duration::from_secs(600);

/// Folders with packages, and mirrors for what none of them has; each asked in their order.
#[derive(Clone, Debug)]
pub struct Store {
    folders: Vec<PathBuf>,
    mirrors: Vec<String>,
    /// Where what came from a mirror is kept.
    cache: Option<PathBuf>,
}

impl Store {
    /// A store of these folders.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, mirrors: Vec::new(), cache: None }
    }

    /// With mirrors or snapshot archives, by the URL of their root, and a folder that keeps what came from them.
    #[must_use]
    pub fn with_mirrors(mut self, mirrors: Vec<String>, cache: PathBuf) -> Self {
        self.folders.push(cache.clone());
        Self { mirrors, cache: Some(cache), ..self }
    }

    /// The bytes of `package`, which are those that are locked.
    ///
    /// # Errors
    /// [`Error::Missing`] if no folder has it, [`Error::Mismatch`] if the first that has it has another one: nobody should have to
    /// wonder which of two files with one name was taken.
    pub fn read(&self, package: &Package) -> Result<Vec<u8>, Error> {
        for folder in &self.folders {
            let path = folder.join(package.file());
            match File::open(&path) {
                Ok(file) => return checked(package, &path, file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Io { what: "read", path, source }),
            }
        }
        let mut looked: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        for mirror in &self.mirrors {
            let url = format!("{}/{}", mirror.trim_end_matches('/'), package.path);
            match fetch(&url, package.size) {
                Ok(bytes) => return self.keep(package, checked(package, Path::new(&url), bytes.as_slice())?),
                Err(why) => looked.push(format!("{url}: {why}")),
            }
        }
        let looked = if looked.is_empty() {
            "no folder and no mirror was given".to_owned()
        } else {
            looked.join(", ")
        };
        Err(Error::Missing { file: package.file().to_owned(), looked })
    }

    /// Keeps what was fetched for the next time.
    fn keep(&self, package: &Package, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        if let Some(cache) = &self.cache {
            let at = |source| Error::Io { what: "write", path: cache.clone(), source };
            std::fs::create_dir_all(cache).map_err(at)?;
            let new = cache.join(format!("{}.new", package.file()));
            std::fs::write(&new, &bytes).map_err(at)?;
            std::fs::rename(&new, cache.join(package.file())).map_err(at)?;
        }
        Ok(bytes)
    }
}

/// What is there, up to one byte more than `size`. Nobody has to trust the mirror or the way to it: the digest is locked.
pub(crate) fn fetch(url: &str, size: u64) -> Result<Vec<u8>, String> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).build().new_agent();
    let mut response = agent.get(url).call().map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    let body = response.body_mut().as_reader().take(size.saturating_add(1)).read_to_end(&mut bytes);
    body.map_err(|e| e.to_string())?;
    Ok(bytes)
}

pub(super) fn checked(package: &Package, path: &Path, file: impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    // One byte more than it may have tells that there are more.
    let read = file.take(package.size.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { what: "read", path: path.to_owned(), source })?;
    let mismatch =
        |what, got: String, want: String| Error::Mismatch { path: path.to_owned(), what, got, want };
    let size = bytes.len() as u64;
    if size != package.size {
        let got = if size > package.size { format!("more than {}", package.size) } else { size.to_string() };
        return Err(mismatch("size", got, package.size.to_string()));
    }
    let sha256 = Digest::of(&bytes);
    if sha256 != package.sha256 {
        return Err(mismatch("sha256", sha256.to_string(), package.sha256.to_string()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_locked_bytes_are_given() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let package = Package {
            name: "p".into(),
            version: "1".into(),
            suite: "s".into(),
            path: "pool/p_1.deb".into(),
            size: 4,
            sha256: Digest::of(b"good"),
        };
        let store = Store::new(vec![empty.path().into(), full.path().into()]);
        let refused = || store.read(&package).unwrap_err().to_string();
        assert!(refused().contains("p_1.deb is nowhere to be found"));
        assert!(
            Store::new(Vec::new())
                .read(&package)
                .unwrap_err()
                .to_string()
                .contains("no folder and no mirror was given")
        );
        let write = |content: &[u8]| std::fs::write(full.path().join("p_1.deb"), content).unwrap();
        write(b"good");
        assert_eq!(store.read(&package).unwrap(), b"good");
        write(b"evil");
        let (got, want) = (Digest::of(b"evil").to_string(), Digest::of(b"good").to_string());
        assert!(refused().contains(&format!("p_1.deb: sha256 is {got}, the lock file wants {want}")));
        write(b"goo");
        assert!(refused().contains("size is 3, the lock file wants 4"));
        write(b"good, and more");
        assert!(refused().contains("size is more than 4, the lock file wants 4"));
    }

    /// A mirror that has one file, and answers `count` requests.
    fn mirror(path: &'static str, content: &'static [u8], count: usize) -> String {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/debian/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(count) {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let asked = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let (status, body) =
                    if asked.contains(path) { ("200 OK", content) } else { ("404 Not Found", &b""[..]) };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            }
        });
        url
    }

    #[test]
    fn mirrors_are_asked_in_their_order_and_what_they_give_is_kept_if_it_is_locked() {
        let cache = tempfile::tempdir().unwrap();
        let package = Package {
            name: "p".into(),
            version: "1".into(),
            suite: "s".into(),
            path: "pool/p_1.deb".into(),
            size: 4,
            sha256: Digest::of(b"good"),
        };
        let with = |mirrors: Vec<String>| {
            Store::new(Vec::new()).with_mirrors(mirrors, cache.path().join("packages"))
        };
        let old = mirror("GET /debian/pool/p_0.deb ", b"gone", 1);
        let nowhere = with(vec![old]).read(&package).unwrap_err().to_string();
        assert!(nowhere.contains("404") && nowhere.contains("image lock --update"), "{nowhere}");
        let evil = mirror("GET /debian/pool/p_1.deb ", b"evil", 1);
        let refused = with(vec![evil]).read(&package).unwrap_err().to_string();
        assert!(refused.contains("pool/p_1.deb: sha256 is"), "{refused}");
        assert!(!cache.path().join("packages/p_1.deb").exists());
        let (old, snapshot) = (
            mirror("GET /debian/pool/p_0.deb ", b"gone", 1),
            mirror("GET /debian/pool/p_1.deb ", b"good", 1),
        );
        assert_eq!(with(vec![old, snapshot]).read(&package).unwrap(), b"good");
        // Nobody is asked a second time.
        assert_eq!(with(Vec::new()).read(&package).unwrap(), b"good");
    }
}
