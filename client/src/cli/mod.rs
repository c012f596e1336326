//! Commands, exit codes, and what a person reads.

mod chat;
mod embed;
mod enclave;
mod generate;
mod inspect;
mod output;
mod policy;
mod proxy;
mod receipt;
mod table;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use cocoon_client::{Error, Policy};

/// Rejected: evidence, policy or verification failed.
const REJECTED: u8 = 1;
/// Could not tell: usage, missing file, unreachable.
const COULD_NOT_TELL: u8 = 2;

/// Verify a Cocoon enclave, then talk to it. Nothing is sent to an enclave that the policy does not accept.
#[derive(Debug, Parser)]
#[command(
    name = "cocoon",
    version,
    about,
    after_help = "Exit codes: 0 accepted / done, 1 rejected, 2 could not tell (usage, missing file, unreachable)."
)]
struct Cli {
    /// Colours: NO_COLOR turns them off at a terminal too
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: output::Color,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify the enclave, then ask; the answer is streamed to standard output
    Chat(chat::ChatArgs),
    /// Verify the enclave, then print the vectors of texts, each a line of JSON
    Embed(embed::EmbedArgs),
    /// Verify the enclave and show every factor; no prompt is sent
    Verify(verify::VerifyArgs),
    /// The OpenAI API on this machine for other programs, with verified enclaves behind it
    Proxy(proxy::ProxyArgs),
    /// Verify receipts of answers, offline
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Appraise evidence from files, offline
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Write and explain policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write a man page for each command
    Man(generate::ManArgs),
}

/// Where the enclave is, and what is accepted there.
#[derive(Debug, Args)]
struct Target {
    /// The enclave, or a relay in front of it
    #[arg(value_name = "HOST:PORT", value_parser = endpoint)]
    endpoint: String,

    /// Policy, TOML [default: $XDG_CONFIG_HOME/cocoon/policy.toml or ~/.config/cocoon/policy.toml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

fn endpoint(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT".to_owned()),
    }
}

impl Target {
    fn policy(&self) -> anyhow::Result<Policy> {
        policy_at(self.policy.as_deref())
    }
}

/// The policy of a file, or the user's own.
fn policy_at(path: Option<&Path>) -> anyhow::Result<Policy> {
    match path {
        Some(path) => read_policy(path),
        None => read_policy(&default_policy()?),
    }
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("cannot read the policy {}; say which with --policy FILE", path.display())
    })?;
    let mut policy = Policy::from_toml(&text).with_context(|| path.display().to_string())?;
    if let Some(file) = policy.floors_file().map(|file| path.with_file_name(file)) {
        let read = |file: &Path| {
            std::fs::read_to_string(file).with_context(|| {
                let (file, policy) = (file.display(), path.display());
                format!("cannot read {file}, signed TCB floors that the policy {policy} names")
            })
        };
        let mut signature = file.as_os_str().to_owned();
        signature.push(".sig");
        let (text, signature) = (read(&file)?, read(Path::new(&signature))?);
        policy.give_floors(&text, &signature).with_context(|| file.display().to_string())?;
    }
    Ok(policy)
}

#[expect(
    clippy::disallowed_methods,
    reason = "where a user's configuration and state lie is said by the environment (XDG base directories)"
)]
fn user_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

fn default_policy() -> anyhow::Result<PathBuf> {
    let config = user_dir("XDG_CONFIG_HOME", ".config").context("no home directory: say --policy FILE")?;
    Ok(config.join("cocoon/policy.toml"))
}

pub(crate) fn run() -> ExitCode {
    let color = output::Color::of(std::env::args_os());
    output::set_color(color);
    let matches = Cli::command().color(color.for_clap()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = tokio::runtime::Builder::new_multi_thread()
        // It serves the connection while this thread waits for a person at standard input or output.
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(dispatch(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            let rejected = error.downcast_ref::<Error>().is_some_and(Error::is_rejection);
            ExitCode::from(if rejected { REJECTED } else { COULD_NOT_TELL })
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Chat(args) => chat::run(args).await,
        Command::Embed(args) => embed::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Proxy(args) => proxy::run(args).await,
        Command::Receipt(command) => receipt::run(command),
        Command::Inspect(command) => inspect::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Completions(args) => generate::completions(&args, Cli::command()),
        Command::Man(args) => generate::man(&args, Cli::command()),
    }
}
