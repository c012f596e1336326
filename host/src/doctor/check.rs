//! One check and what came of it.

use serde::Serialize;

/// The longest text of a machine that is shown, in characters.
const MAX_FOUND: usize = 200;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// As it must be.
    Pass,
    /// An enclave may run without it, or it cannot be told from here.
    Warn,
    /// An enclave will not run.
    Fail,
}

/// What was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name; `docs/operating.md` lists all.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub want: String,
    /// What to do, unless it passed.
    pub fix: Option<String>,
}

/// A check to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) want: &'static str,
    pub(super) fix: &'static str,
}

impl Rule {
    pub(super) fn pass(&self, found: impl AsRef<str>) -> Check {
        Check {
            name: self.name,
            status: Status::Pass,
            found: printable(found.as_ref()),
            want: self.want.to_owned(),
            fix: None,
        }
    }

    pub(super) fn warn(&self, found: impl AsRef<str>) -> Check {
        Check { status: Status::Warn, fix: Some(self.fix.to_owned()), ..self.pass(found) }
    }

    pub(super) fn fail(&self, found: impl AsRef<str>) -> Check {
        Check { status: Status::Fail, fix: Some(self.fix.to_owned()), ..self.pass(found) }
    }

    /// Passes when it `holds`.
    pub(super) fn must(&self, holds: bool, found: impl AsRef<str>) -> Check {
        if holds { self.pass(found) } else { self.fail(found) }
    }

    /// Passes when it `holds`, and otherwise warns.
    pub(super) fn should(&self, holds: bool, found: impl AsRef<str>) -> Check {
        if holds { self.pass(found) } else { self.warn(found) }
    }
}

impl Check {
    /// Another fix than the rule's, where more is known.
    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: self.fix.map(|_of_the_rule| fix.into()), ..self }
    }
}

/// Some of it comes from programs and devices: no control character may act on the operator's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_FOUND).collect()
}

/// `1.2` at the start of a text, whatever follows.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = number(text)?;
    let (minor, _) = number(rest.strip_prefix('.')?)?;
    Some((major, minor))
}

/// The number at the start of a text, and what follows.
pub(super) fn number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        assert_eq!(version("6.12.95+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("10.1"), Some((10, 1)));
        assert_eq!(version("11.0.50 (v11)"), Some((11, 0)));
        for bad in ["", "6", "6.", "x.1", ".1", "99999999999.1", "-1.2"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_machine_cannot_write_to_the_terminal() {
        let rule = Rule { name: "x", want: "y", fix: "z" };
        assert_eq!(rule.fail("a\u{1b}[2Jb\nc").found, "a [2Jb c");
        assert_eq!(rule.pass("x".repeat(MAX_FOUND + 1)).found.len(), MAX_FOUND);
        assert_eq!(rule.pass("x".repeat(MAX_FOUND)).found.len(), MAX_FOUND);
        assert_eq!((rule.pass("").fix, rule.pass("").fix("other").fix), (None, None));
    }
}
