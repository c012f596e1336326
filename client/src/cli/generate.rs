//! `cocoon completions` and `cocoon man`: from the definitions that `--help` is made of.

use std::path::PathBuf;

use anyhow::Context;
use clap::Command;

use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell: `cocoon completions bash > ~/.local/share/bash-completion/completions/cocoon`
    shell: Shell,
}

/// Shells whose completions are tried in the tests.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Folder for the pages, for example ~/.local/share/man/man1; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "cocoon", &mut script);
    let script = String::from_utf8(script).context("the completions are not text")?;
    output::line(script.trim_end());
    Ok(())
}

pub(super) fn man(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let dir = args.dir.display();
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {dir}"))?;
    clap_mangen::generate_to(command, &args.dir).with_context(|| format!("cannot write to {dir}"))
}
