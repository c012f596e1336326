//! Reports through configfs-tsm, the kernel's one interface for all TEEs (Linux >= 6.7).
//!
//! A request is a folder: what is to be signed is written to `inblob`, the report comes out of `outblob`, and `generation` counts
//! the writes, so that a reader notices when somebody else wrote into its folder in between.
//!
//! Source: Linux, Documentation/ABI/testing/configfs-tsm-report.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::files::Files;
use crate::attest::ReportData;

/// Where the kernel has it, below `/`.
pub const REPORT_DIR: &str = "sys/kernel/config/tsm/report";

/// An SNP report has 1184 bytes, a TDX quote with its certificates 5 to 8 KiB.
pub const MAX_REPORT: usize = 16 * 1024;

/// The kernel gives the host 16 KiB for certificates; the rest is for kernels that give it more.
pub const MAX_AUX: usize = 64 * 1024;

/// Names and numbers.
const MAX_WORD: usize = 64;

/// Somebody else who writes into our folder, or firmware that is busy, is waited for so often ..
const MAX_ATTEMPTS: u32 = 4;

/// .. and so long, twice as long each time.
const PAUSE: Duration = Duration::from_millis(20);

/// Who makes the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `sev_guest`
    SevGuest,
    /// `tdx_guest`
    TdxGuest,
}

impl Provider {
    fn of_name(name: &str) -> Option<Self> {
        match name {
            "sev_guest" => Some(Self::SevGuest),
            "tdx_guest" => Some(Self::TdxGuest),
            _ => None,
        }
    }

    /// As the kernel names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SevGuest => "sev_guest",
            Self::TdxGuest => "tdx_guest",
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TsmError {
    /// No provider is registered: this is no TEE, or its driver is not there.
    #[error("the kernel has configfs-tsm, but no driver that makes reports")]
    NoProvider,
    /// A TEE that is not supported, or another than before.
    #[error("configfs-tsm belongs to {0:?}, which this program cannot use: it knows sev_guest and tdx_guest")]
    UnknownProvider(String),
    /// Another TEE than the one that was asked for.
    #[error("configfs-tsm belongs to {}, not to {}", got.name(), want.name())]
    OtherProvider {
        /// Who makes reports here.
        got: Provider,
        /// Who was expected.
        want: Provider,
    },
    /// The kernel refuses.
    #[error("configfs-tsm: {what}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
    /// More than can be.
    #[error("configfs-tsm: {what} is longer than {max} bytes")]
    TooLong {
        /// Which attribute.
        what: &'static str,
        /// Its limit.
        max: usize,
    },
    /// An attribute that says nothing that makes sense.
    #[error("configfs-tsm: {0} is empty or makes no sense")]
    Senseless(&'static str),
    /// Somebody else wrote in between, each time.
    #[error("configfs-tsm: somebody else writes into this program's request")]
    Conflict,
}

impl TsmError {
    /// Whether the same request may succeed a moment later.
    fn passes(&self) -> bool {
        use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
        match self {
            Self::Conflict => true,
            Self::Io { error, .. } => matches!(error.kind(), Interrupted | ResourceBusy | WouldBlock),
            Self::NoProvider
            | Self::UnknownProvider(_)
            | Self::OtherProvider { .. }
            | Self::TooLong { .. }
            | Self::Senseless(_) => false,
        }
    }
}

/// What else came with a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aux {
    /// Nothing.
    Absent,
    /// The host's certificates, unverified.
    Bytes(Vec<u8>),
    /// Something that could not be read. The report is no worse for it.
    Unusable,
}

/// What the kernel answered.
#[derive(Clone, Debug)]
pub struct TsmReport {
    /// The signed report: not empty, at most [`MAX_REPORT`].
    pub outblob: Vec<u8>,
    /// What came with it: at most [`MAX_AUX`].
    pub aux: Aux,
}

/// The folder in which requests are made.
#[derive(Clone)]
pub struct Tsm {
    files: Arc<dyn Files>,
    dir: PathBuf,
}

impl std::fmt::Debug for Tsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tsm").field(&self.dir).finish()
    }
}

impl Tsm {
    /// Below `root`, which is `/` outside tests.
    pub(super) fn new(files: Arc<dyn Files>, root: &Path) -> Self {
        Self { files, dir: root.join(REPORT_DIR) }
    }

    /// Who makes reports here; `None` if the kernel has no configfs-tsm.
    ///
    /// # Errors
    /// [`TsmError`], with `NoProvider` where nobody does.
    pub fn provider(&self) -> Result<Option<Provider>, TsmError> {
        match Entry::create(self)? {
            None => Ok(None),
            Some(entry) => entry.provider().map(Some),
        }
    }

    /// A report over `data`. Blocks for as long as the hardware takes.
    ///
    /// # Errors
    /// [`TsmError`]; what passes was tried four times.
    pub fn report(&self, want: Provider, data: &ReportData) -> Result<TsmReport, TsmError> {
        let mut pause = PAUSE;
        for _ in 1..MAX_ATTEMPTS {
            match self.attempt(want, data) {
                Err(e) if e.passes() => std::thread::sleep(pause),
                done => return done,
            }
            pause *= 2;
        }
        self.attempt(want, data)
    }

    fn attempt(&self, want: Provider, data: &ReportData) -> Result<TsmReport, TsmError> {
        let entry = Entry::create(self)?.ok_or(TsmError::NoProvider)?;
        let got = entry.provider()?;
        if got != want {
            return Err(TsmError::OtherProvider { got, want });
        }
        let mut generation = entry.generation()?;
        // The most privileged level, which is where the enclave runs: TDX has no such attribute.
        if got == Provider::SevGuest && entry.write_if_there("privlevel", b"0")? {
            generation = generation.wrapping_add(1);
        }
        entry.write("inblob", data.bytes())?;
        generation = generation.wrapping_add(1);
        entry.expect_generation(generation)?;
        let outblob = entry.read("outblob", MAX_REPORT)?;
        let aux = entry.aux()?;
        entry.expect_generation(generation)?;
        if outblob.is_empty() {
            return Err(TsmError::Senseless("outblob"));
        }
        Ok(TsmReport { outblob, aux })
    }
}

/// One request, removed when dropped.
struct Entry<'a> {
    files: &'a dyn Files,
    path: PathBuf,
}

/// ENXIO: what the kernel says where no driver is registered.
const ENXIO: i32 = 6;

impl<'a> Entry<'a> {
    /// `None` without configfs-tsm.
    fn create(tsm: &'a Tsm) -> Result<Option<Self>, TsmError> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_no_random| TsmError::Io {
            what: "a name",
            error: io::Error::other("no random bytes"),
        })?;
        let path = tsm.dir.join(format!("cocoon-{}", hex::encode(random)));
        match tsm.files.create_dir(&path) {
            Ok(()) => Ok(Some(Self { files: &*tsm.files, path })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.raw_os_error() == Some(ENXIO) => Err(TsmError::NoProvider),
            Err(error) => Err(TsmError::Io { what: "mkdir", error }),
        }
    }

    fn provider(&self) -> Result<Provider, TsmError> {
        let bytes = self.read("provider", MAX_WORD)?;
        let name = std::str::from_utf8(&bytes).map_err(|_not_text| TsmError::Senseless("provider"))?;
        let name = name.trim_ascii();
        Provider::of_name(name).ok_or_else(|| TsmError::UnknownProvider(name.to_owned()))
    }

    fn generation(&self) -> Result<u64, TsmError> {
        let bytes = self.read("generation", MAX_WORD)?;
        let text = std::str::from_utf8(&bytes).ok().map(str::trim_ascii);
        text.and_then(|text| text.parse().ok()).ok_or(TsmError::Senseless("generation"))
    }

    fn expect_generation(&self, want: u64) -> Result<(), TsmError> {
        if self.generation()? == want { Ok(()) } else { Err(TsmError::Conflict) }
    }

    /// The host chooses what is in it: nothing about it can fail a report, but that the kernel wants to be asked again.
    fn aux(&self) -> Result<Aux, TsmError> {
        match self.read("auxblob", MAX_AUX) {
            Ok(bytes) if bytes.is_empty() => Ok(Aux::Absent),
            Ok(bytes) => Ok(Aux::Bytes(bytes)),
            Err(TsmError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(Aux::Absent),
            Err(e) if e.passes() => Err(e),
            Err(_) => Ok(Aux::Unusable),
        }
    }

    fn read(&self, what: &'static str, max: usize) -> Result<Vec<u8>, TsmError> {
        let bytes =
            self.files.read(&self.path.join(what), max).map_err(|error| TsmError::Io { what, error })?;
        if bytes.len() > max { Err(TsmError::TooLong { what, max }) } else { Ok(bytes) }
    }

    fn write(&self, what: &'static str, bytes: &[u8]) -> Result<(), TsmError> {
        self.files.write(&self.path.join(what), bytes).map_err(|error| TsmError::Io { what, error })
    }

    fn write_if_there(&self, what: &'static str, bytes: &[u8]) -> Result<bool, TsmError> {
        match self.write(what, bytes) {
            Ok(()) => Ok(true),
            Err(TsmError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // One folder too many hurts nobody, and there is nobody to tell.
        let _stays = self.files.remove_dir(&self.path);
    }
}
