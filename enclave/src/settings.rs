//! What can be configured, from flags. Everything that changes what clients can rely on enters the configuration digest.

use std::path::PathBuf;

use clap::Parser;
use cocoon_attestation::wire::config_digest;
use cocoon_attestation::{Digest, Error};

use crate::platform::Tee;
use crate::platform::gpu::MAX_GPUS;
use crate::platform::qgs::DEFAULT_PORT;

/// Runs a language model behind an attested channel. Inside the image this is PID 1; here it is an ordinary process.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    about,
    after_help = "cocoon-enclave bench --help: measures the engine on this machine.\n\nExit codes: 0 ended as asked, 1 refused (model or platform), 2 could not tell (usage, missing file)."
)]
pub struct Settings {
    /// Where to listen: HOST:PORT, or vsock:PORT inside a VM. Port 0 picks one; the event `listening` says which
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub listen: ListenAddress,

    /// GGUF file, or a folder of safetensors as Hugging Face publishes models, also in a tar archive; read once into private memory, hashed, and used from there.
    /// For several models, give it several times; what is given of each with the other flags must be in the same order
    #[arg(long, value_name = "FILE", required = true)]
    pub model: Vec<PathBuf>,

    /// Bytes of the model, where it lies on a disk: disks end at a whole sector
    #[arg(long, value_name = "BYTES")]
    pub model_size: Vec<u64>,

    /// Manifest digest that the model must have, 64 hex digits (`cocoon-measure model digest FILE`). Without it, whatever the file is will be stated
    #[arg(long, value_name = "HEX")]
    pub model_digest: Vec<Digest>,

    /// Name of the model in the API [default: from the file]
    #[arg(long, value_name = "NAME")]
    pub model_name: Vec<String>,

    /// The platform that attests
    #[arg(long, default_value = "auto")]
    pub tee: Tee,

    /// NVIDIA GPUs that this machine has, all in confidential-computing mode: they attest beside the processor, and the model runs on
    /// them; so far on one, with a program built with feature cuda
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_GPUS)))]
    pub gpus: u32,

    /// Bundle of endorsements that clients get with the evidence: vendor certificates, revocation lists, TCB info, RIMs, OCSP
    /// responses. Read at start, when it changes, and for every epoch
    #[arg(long, value_name = "FILE")]
    pub endorsements: Option<PathBuf>,

    /// Release that this enclave is of: manifest, signatures, log proof (`cocoon-measure release create`). Clients get it with the
    /// evidence. Read at start, and when it changes for a newer proof
    #[arg(long, value_name = "FILE")]
    pub release: Option<PathBuf>,

    /// vsock port of the host's quote generation service, for TDX on kernels without configfs-tsm
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    pub qgs_port: u32,

    /// Threads that compute [default: as many as there are processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Connections at once; more are closed unanswered
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_connections: u32,

    /// Requests that run at once, of each model; they share the processors, and the memory for keys and values
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_running: u16,

    /// Requests that wait for their turn, of each model; more are answered with 429
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub max_waiting: u16,

    /// Tokens that are computed in a step at most: so long do answers wait for prompts of others
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub step_tokens: u32,

    /// MiB for keys and values of all requests, shared evenly by models; contexts are shorter if a whole one does not fit. What does not fit waits, or gives
    /// way and is computed again [default: enough for all that may run, at most 4096 and a quarter of the memory that is free; on a GPU at
    /// most three quarters of what is free beside the model]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub kv_memory: Option<u32>,

    /// Compute only on processors that no other thread wants: what is sent leaves on time, whatever is computed. Always so in an image
    #[arg(long)]
    pub yield_processors: bool,

    /// Do not guess tokens from what was said before; answers are the same
    #[arg(long)]
    pub no_speculation: bool,

    /// Seconds that one request may take, waiting included
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub request_deadline: u32,

    /// Seconds for running answers to end after SIGTERM
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub drain_timeout: u32,

    /// Say the digest of the configuration, as the event `configured`, and end: for image builds
    #[arg(long)]
    pub describe: bool,

    /// End when standard input closes: for a parent that may die
    #[arg(long)]
    pub until_stdin_closes: bool,

    /// Write a client policy that accepts exactly this simulated enclave
    #[cfg(feature = "sim")]
    #[arg(long, value_name = "FILE")]
    pub sim_policy_out: Option<PathBuf>,

    /// Compute on this machine's GPU, though nothing attests it
    #[cfg(feature = "sim")]
    #[arg(long, conflicts_with = "gpus")]
    pub sim_gpu: bool,

    /// Device of the simulated processor that runs outside this machine
    #[cfg(feature = "sim")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sim_state", "sim_policy_out"])]
    pub sim_processor: Option<PathBuf>,

    /// Tell what is in this machine, at boot and when it listens
    #[cfg(feature = "sim")]
    #[arg(long)]
    pub sim_look_inside: bool,

    /// Crash at boot: to see what the kernel then shows to the host
    #[cfg(feature = "sim")]
    #[arg(long)]
    pub sim_crash: bool,

    /// Folder of the simulated processor [default: $XDG_STATE_HOME/cocoon/sim or ~/.local/state/cocoon/sim]
    #[cfg(feature = "sim")]
    #[arg(long, value_name = "DIR")]
    pub sim_state: Option<PathBuf>,
}

/// Models of an enclave at most: S has room for so many.
pub const MAX_MODELS: usize = 16;

/// A model as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSettings {
    /// File, folder or disk.
    pub path: PathBuf,
    /// Bytes of it, if it is a disk.
    pub size: Option<u64>,
    /// The manifest digest that it must have.
    pub digest: Option<Digest>,
    /// Its name in the API, if it is not to be taken from the file.
    pub name: Option<String>,
}

/// Why settings are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// More models than S has room for.
    #[error("--model is there {0} times; an enclave serves at most {MAX_MODELS} models")]
    TooManyModels(usize),
    /// A flag that says something of some models only.
    #[error(
        "{flag} is there {given} times and --model {models} times: give it for every model, in the same order, or for none"
    )]
    NotOfEveryModel {
        /// The flag.
        flag: &'static str,
        /// How often it is there.
        given: usize,
        /// How many models there are.
        models: usize,
    },
    /// Two models with the same name or digest.
    #[error("{0} says the same of two models, so nobody could tell them apart")]
    SameModel(&'static str),
    /// More GPUs than the engine computes on.
    #[error("--gpus {0}: the model runs on one GPU so far; pass one to the machine")]
    SeveralGpus(u32),
    /// The program has no CUDA kernels.
    #[error(
        "this program was built without CUDA, so no model runs on a GPU: build it with feature cuda, or leave --gpus away"
    )]
    NoCuda,
    /// A GPU that nothing attests, beside a processor that does.
    #[cfg(feature = "sim")]
    #[error("--sim-gpu is for --tee sim: elsewhere GPUs attest, see --gpus")]
    UnattestedGpu,
}

impl Settings {
    /// Whether the model runs on a GPU: on one that attests, or on a simulated platform.
    #[must_use]
    pub fn computes_on_gpu(&self) -> bool {
        #[cfg(feature = "sim")]
        if self.sim_gpu {
            return true;
        }
        self.gpus > 0
    }

    /// Refuses what this program cannot do, before anything is started.
    ///
    /// # Errors
    /// With several GPUs, with one that this program was not built for, or with one that nothing attests where that matters; as
    /// [`Settings::models`].
    pub fn check(&self) -> Result<(), SettingsError> {
        self.models()?;
        #[cfg(feature = "sim")]
        if self.sim_gpu && self.tee != Tee::Sim {
            return Err(SettingsError::UnattestedGpu);
        }
        match self.gpus {
            _ if self.computes_on_gpu() && !cfg!(feature = "cuda") => Err(SettingsError::NoCuda),
            0 | 1 => Ok(()),
            gpus => Err(SettingsError::SeveralGpus(gpus)),
        }
    }

    /// The models, in the order of S.
    ///
    /// # Errors
    /// When there are too many, when a flag is there for some of them only, or when two cannot be told apart.
    pub fn models(&self) -> Result<Vec<ModelSettings>, SettingsError> {
        let models = self.model.len();
        if models > MAX_MODELS {
            return Err(SettingsError::TooManyModels(models));
        }
        let lens = [
            ("--model-size", self.model_size.len()),
            ("--model-digest", self.model_digest.len()),
            ("--model-name", self.model_name.len()),
        ];
        if let Some((flag, given)) = lens.into_iter().find(|(_, given)| ![0, models].contains(given)) {
            return Err(SettingsError::NotOfEveryModel { flag, given, models });
        }
        if is_twice(&self.model_digest) {
            return Err(SettingsError::SameModel("--model-digest"));
        }
        if is_twice(&self.model_name) {
            return Err(SettingsError::SameModel("--model-name"));
        }
        let of = |(n, path): (usize, &PathBuf)| ModelSettings {
            path: path.clone(),
            size: self.model_size.get(n).copied(),
            digest: self.model_digest.get(n).copied(),
            name: self.model_name.get(n).cloned(),
        };
        Ok(self.model.iter().enumerate().map(of).collect())
    }

    /// Digest of what clients rely on; addresses, paths and thread counts are not part of it.
    ///
    /// # Errors
    /// Never with the settings of this version.
    pub fn digest(&self) -> Result<Digest, Error> {
        let digests: Vec<_> = self.model_digest.iter().map(Digest::to_string).collect();
        config_digest([
            ("gpus", self.gpus.to_string()),
            ("max_connections", self.max_connections.to_string()),
            ("max_running", self.max_running.to_string()),
            ("max_waiting", self.max_waiting.to_string()),
            ("model_digest", if digests.is_empty() { "any".to_owned() } else { digests.join(",") }),
            ("model_name", self.model_name.join("\0")), // which no argument can hold
            ("request_deadline", self.request_deadline.to_string()),
        ])
    }
}

/// Whether something is there more than once.
pub(crate) fn is_twice<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(n, item)| items.iter().take(n).any(|before| before == item))
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `HOST:PORT`
    Tcp(String),
    /// `vsock:PORT`, on any context identifier
    Vsock(u32),
}

impl std::str::FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(port) = text.strip_prefix("vsock:") {
            return port.parse().map(Self::Vsock).map_err(|_not_a_number| "vsock:PORT needs a number");
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("expected HOST:PORT or vsock:PORT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!("vsock:8443".parse(), Ok(ListenAddress::Vsock(8443)));
        assert_eq!("[::1]:0".parse(), Ok(ListenAddress::Tcp("[::1]:0".to_owned())));
        for bad in ["vsock:x", "vsock:", "8443", ":8443", "localhost:", "localhost:70000", ""] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn as_many_gpus_as_a_statement_has_room_for() {
        let parse = |gpus| Settings::try_parse_from(["cocoon-enclave", "--model", "m.gguf", "--gpus", gpus]);
        assert_eq!(parse("16").unwrap().gpus, 16);
        assert!(parse("17").is_err() && parse("-1").is_err());
    }

    #[test]
    fn every_model_has_what_is_said_of_it() {
        let models = |extra: &[&str]| {
            let program = ["cocoon-enclave", "--model", "a.gguf", "--model", "b"];
            Settings::try_parse_from(program.iter().chain(extra)).unwrap().models()
        };
        let (one, other) = ("1".repeat(64), "2".repeat(64));
        let both = models(&[
            "--model-name",
            "x",
            "--model-digest",
            &one,
            "--model-digest",
            &other,
            "--model-name",
            "y",
        ]);
        let both = both.unwrap();
        assert_eq!(both.iter().map(|m| m.path.to_str().unwrap()).collect::<Vec<_>>(), ["a.gguf", "b"]);
        assert_eq!(both.iter().map(|m| m.name.clone().unwrap()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(both[1].digest.unwrap().to_string(), other);
        assert_eq!(models(&[]).unwrap()[1].size, None);
        let missing = |flag| SettingsError::NotOfEveryModel { flag, given: 1, models: 2 };
        assert_eq!(models(&["--model-name", "x"]), Err(missing("--model-name")));
        assert_eq!(models(&["--model-size", "7"]), Err(missing("--model-size")));
        assert_eq!(models(&["--model-digest", &one]), Err(missing("--model-digest")));
        let same = |flag| Err(SettingsError::SameModel(flag));
        assert_eq!(models(&["--model-name", "x", "--model-name", "x"]), same("--model-name"));
        assert_eq!(models(&["--model-digest", &one, "--model-digest", &one]), same("--model-digest"));
        let many = ["--model", "c"].repeat(15);
        assert_eq!(models(&many), Err(SettingsError::TooManyModels(17)));
    }

    #[test]
    fn gpus_that_nothing_computes_on_or_attests_are_refused() {
        let check = |extra: &[&str]| {
            let program = ["cocoon-enclave", "--model", "m.gguf"];
            Settings::try_parse_from(program.iter().chain(extra)).unwrap().check()
        };
        assert_eq!(check(&[]), Ok(()));
        if cfg!(feature = "cuda") {
            assert_eq!(check(&["--gpus", "1"]), Ok(()));
            assert_eq!(check(&["--gpus", "2"]), Err(SettingsError::SeveralGpus(2)));
        } else {
            assert_eq!(check(&["--gpus", "1"]), Err(SettingsError::NoCuda));
        }
        #[cfg(feature = "sim")]
        {
            assert_eq!(check(&["--tee", "snp", "--sim-gpu"]), Err(SettingsError::UnattestedGpu));
            assert_eq!(check(&["--tee", "sim", "--sim-gpu"]).is_ok(), cfg!(feature = "cuda"));
        }
    }

    #[test]
    fn digest_covers_what_clients_rely_on() {
        let parse = |extra: &[&str]| {
            Settings::parse_from(["cocoon-enclave", "--model", "m.gguf"].iter().chain(extra))
                .digest()
                .unwrap()
        };
        assert_eq!(parse(&[]), parse(&["--listen", "[::]:1", "--threads", "3"]));
        assert_eq!(parse(&[]), parse(&["--step-tokens", "64", "--kv-memory", "9", "--no-speculation"]));
        assert_eq!(parse(&[]), parse(&["--yield-processors"]));
        assert_eq!(parse(&[]), parse(&["--endorsements", "bundle.cbor", "--qgs-port", "1"]));
        assert_eq!(parse(&[]), parse(&["--release", "release.cbor"]));
        assert_ne!(parse(&[]), parse(&["--gpus", "1"]));
        assert_ne!(parse(&[]), parse(&["--max-waiting", "1"]));
        assert_ne!(parse(&[]), parse(&["--model-digest", &"0".repeat(64)]));
        assert_ne!(parse(&["--model-name", "a"]), parse(&["--model-name", "b"]));
    }
}
