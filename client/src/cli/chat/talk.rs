//! A conversation: every turn goes with all that were before it.

use std::io::IsTerminal;

use anyhow::Context;
use cocoon_client::{AttestedSession, ChatRequest, Error, Policy, Role};

use super::lines::Lines;
use super::{output, stream, verified};

const HELP: &str = "\
/new    start over: the enclave is not told again what was said
/help   this
/quit   end, as Ctrl-D does

Ctrl-C stops an answer; what came of it stays in the conversation. A space before a slash sends the line as it is.";

/// A conversation with one enclave.
pub(super) struct Talk {
    endpoint: String,
    policy: Policy,
    session: AttestedSession,
    /// All turns so far.
    request: ChatRequest,
    /// Turns that are there from the start.
    first: usize,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    New,
    Help,
    Quit,
    Unknown,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        match line.trim() {
            "" => Self::Nothing,
            text if !line.starts_with('/') => Self::Say(text),
            "/new" => Self::New,
            "/help" | "/?" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            _ => Self::Unknown,
        }
    }
}

impl Talk {
    pub(super) fn new(
        endpoint: String,
        policy: Policy,
        session: AttestedSession,
        request: ChatRequest,
    ) -> Self {
        let first = request.messages().len();
        Self { endpoint, policy, session, request, first }
    }

    /// Until standard input ends. Fails if the enclave is not accepted any more, or if nobody reads the answers.
    pub(super) async fn run(mut self, prompt: Option<String>) -> anyhow::Result<()> {
        let is_terminal = std::io::stdin().is_terminal();
        if is_terminal {
            output::note("Ask; /help says what else there is, Ctrl-D ends.");
        }
        if let Some(prompt) = prompt {
            self.turn(&prompt).await?;
        }
        let mut lines = Lines::of_stdin();
        loop {
            if is_terminal {
                output::ask("> ");
            }
            let line = tokio::select! {
                line = lines.next() => line.context("cannot read standard input")?,
                stopped = tokio::signal::ctrl_c() => {
                    stopped.context("cannot wait for Ctrl-C")?;
                    output::note("\n(Ctrl-D or /quit ends)");
                    continue;
                }
            };
            let Some(line) = line else { break };
            match Line::of(&line) {
                Line::Nothing => {}
                Line::Say(text) => self.turn(text).await?,
                Line::New => self.request.messages_mut().truncate(self.first),
                Line::Help => output::note(HELP),
                Line::Quit => return Ok(()),
                Line::Unknown => output::note("there is no such command; /help lists those that there are"),
            }
        }
        if is_terminal {
            output::note("");
        }
        Ok(())
    }

    /// Asks, and keeps question and answer, unless there was no answer at all.
    async fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.request.push(Role::User, text);
        let mut said = String::new();
        let ended = tokio::select! {
            ended = self.answer(&mut said) => ended,
            stopped = tokio::signal::ctrl_c() => {
                stopped.context("cannot wait for Ctrl-C")?;
                output::note("\n(stopped)");
                Ok(())
            }
        };
        if said.is_empty() {
            self.request.messages_mut().pop();
        } else {
            self.request.push(Role::Assistant, said);
        }
        match ended {
            Err(error) if error.downcast_ref().is_some_and(|error: &Error| !error.is_rejection()) => {
                output::error(&error);
                Ok(())
            }
            ended => ended,
        }
    }

    /// A session that ended, as after a quarter of an hour without a question, was not sent this one: connects and verifies again.
    async fn answer(&mut self, said: &mut String) -> anyhow::Result<()> {
        if self.session.is_open() {
            match stream(&self.session, &self.request, said).await {
                Err(error) if said.is_empty() && matches!(error.downcast_ref(), Some(Error::Ended(_))) => {}
                ended => return ended.map(|_receipt| ()),
            }
        }
        self.session = verified(&self.endpoint, self.policy.clone()).await?;
        stream(&self.session, &self.request, said).await.map(|_receipt| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_something_or_are_commands() {
        for (line, wanted) in [
            ("", Line::Nothing),
            (" \t", Line::Nothing),
            (" What? ", Line::Say("What?")),
            ("a /new", Line::Say("a /new")),
            (" /new", Line::Say("/new")),
            ("/new ", Line::New),
            ("/help", Line::Help),
            ("/quit", Line::Quit),
            ("/nothing", Line::Unknown),
        ] {
            assert_eq!(Line::of(line), wanted, "{line:?}");
        }
    }
}
