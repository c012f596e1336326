//! Calls of tools in an answer: `<tool_call>`, a JSON object with a name and arguments, `</tool_call>`.
//!
//! An answer is a model's, which may have been talked into anything: what is no call of a tool that the client has is text. It is
//! read a character at a time, so that what comes of it does not depend on the pieces in which it came.

use serde_json::Value;
use zeroize::Zeroizing;

use super::json::wipe;
use super::tools::Callable;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// White space and the beginning of a tag that are held back.
const MAX_HELD: usize = 256;
/// What is before the arguments.
const MAX_HEADER: usize = 256;
/// A call in another order than usual is held back as a whole, up to so many bytes.
const MAX_WHOLE: usize = 64 * 1024;

/// A part of an answer.
pub(crate) enum Part {
    /// Text for people.
    Text(Zeroizing<String>),
    /// A call begins.
    Call { index: usize, name: String },
    /// More of its arguments, as JSON.
    Arguments { index: usize, text: Zeroizing<String> },
}

/// Takes the text of one answer apart.
pub(crate) struct Calls {
    names: Vec<String>,
    several: bool,
    made: usize,
    state: State,
    held: Zeroizing<String>,
    parts: Vec<Part>,
}

#[derive(Clone, Copy)]
enum State {
    Text,
    /// Behind the tag.
    Header,
    /// In the arguments: how many objects and arrays are open, and whether a string is.
    Arguments {
        depth: usize,
        in_string: bool,
        escaped: bool,
    },
    /// Behind the arguments.
    Behind,
    /// Behind the tag, and it does not begin as usual.
    Whole,
}

/// What the beginning of a call says.
enum Header {
    More,
    Other,
    Name(String),
}

impl Calls {
    pub(crate) fn new(callable: &Callable) -> Self {
        let (names, several) = (callable.names.clone(), callable.several);
        let held = Zeroizing::new(String::with_capacity(MAX_HELD + 8));
        Self { names, several, made: 0, state: State::Text, held, parts: Vec::new() }
    }

    /// How many calls there were.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Takes more of the answer; gives what is certain now.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        text.chars().for_each(|c| self.step(c));
        std::mem::take(&mut self.parts)
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        match self.state {
            State::Text => {
                let held = std::mem::take(&mut self.held);
                // White space behind a call is no text.
                if self.made == 0 || !held.trim().is_empty() {
                    self.text(&held);
                }
            }
            State::Header | State::Whole => self.take_whole(),
            State::Arguments { .. } | State::Behind => {}
        }
        std::mem::take(&mut self.parts)
    }

    fn step(&mut self, c: char) {
        match self.state {
            State::Text => self.in_text(c),
            State::Header => self.in_header(c),
            State::Arguments { .. } => self.in_arguments(c),
            State::Behind => self.behind(c),
            State::Whole => self.in_whole(c),
        }
    }

    fn hold(&mut self, c: char) {
        if self.held.len() + c.len_utf8() > self.held.capacity() {
            let mut grown = Zeroizing::new(String::with_capacity(2 * self.held.capacity() + 8));
            grown.push_str(&self.held);
            self.held = grown;
        }
        self.held.push(c);
    }

    fn go(&mut self, state: State) {
        self.held.clear();
        self.state = state;
    }

    fn in_text(&mut self, c: char) {
        self.hold(c);
        let is_beginning = |text: &str| text.len() <= MAX_HELD && OPEN.starts_with(text.trim_start());
        if self.held.trim_start() == OPEN {
            return self.go(State::Header);
        }
        let cuts = self.held.char_indices().map(|(at, _)| at).chain([self.held.len()]);
        let mut beginnings = cuts.filter(|at| self.held.get(*at..).is_some_and(is_beginning));
        let cut = beginnings.next().unwrap_or_default();
        if cut > 0 {
            let held = std::mem::replace(&mut self.held, Zeroizing::new(String::with_capacity(MAX_HELD + 8)));
            let (certain, rest) = held.split_at(cut);
            self.text(certain);
            self.held.push_str(rest);
        }
    }

    fn in_header(&mut self, c: char) {
        self.hold(c);
        match header(&self.held) {
            Header::More if self.held.len() <= MAX_HEADER => {}
            Header::Name(name) if self.names.contains(&name) => {
                if self.is_full() {
                    return self.go(State::Behind);
                }
                self.call(name);
                self.go(State::Arguments { depth: 1, in_string: false, escaped: false });
                self.arguments("{");
            }
            // Perhaps this character ends it.
            Header::More | Header::Other | Header::Name(_) => {
                self.state = State::Whole;
                self.end_whole();
            }
        }
    }

    fn in_arguments(&mut self, c: char) {
        let State::Arguments { mut depth, mut in_string, mut escaped } = self.state else { return };
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
        self.arguments(c.encode_utf8(&mut [0; 4]));
        if depth == 0 {
            self.go(State::Behind);
        } else {
            self.state = State::Arguments { depth, in_string, escaped };
        }
    }

    /// Drops everything up to the closing tag.
    fn behind(&mut self, c: char) {
        self.hold(c);
        while !CLOSE.starts_with(self.held.as_str()) {
            self.held.remove(0);
        }
        if *self.held == CLOSE {
            self.go(State::Text);
        }
    }

    fn in_whole(&mut self, c: char) {
        self.hold(c);
        self.end_whole();
    }

    fn end_whole(&mut self) {
        if self.held.ends_with(CLOSE) || self.held.len() > MAX_WHOLE {
            self.take_whole();
            self.go(State::Text);
        }
    }

    /// What was held back since the tag: a call, or text.
    fn take_whole(&mut self) {
        let held = std::mem::take(&mut self.held);
        let body = held.strip_suffix(CLOSE).unwrap_or(&held);
        match whole(body).filter(|(name, _)| self.names.contains(name)) {
            Some(_) if self.is_full() => {}
            Some((name, arguments)) => {
                self.call(name);
                self.arguments(&arguments);
            }
            None => {
                self.text(OPEN);
                self.text(&held);
            }
        }
    }

    /// Whether another call would be one too many.
    fn is_full(&self) -> bool {
        !self.several && self.made > 0
    }

    fn call(&mut self, name: String) {
        self.parts.push(Part::Call { index: self.made, name });
        self.made += 1;
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(before)) => append(before, text),
            _ => self.parts.push(Part::Text(Zeroizing::new(text.to_owned()))),
        }
    }

    fn arguments(&mut self, text: &str) {
        let index = self.made.saturating_sub(1);
        match self.parts.last_mut() {
            Some(Part::Arguments { text: before, .. }) => append(before, text),
            _ => self.parts.push(Part::Arguments { index, text: Zeroizing::new(text.to_owned()) }),
        }
    }
}

/// Appends without leaving a copy of the old buffer behind.
fn append(to: &mut Zeroizing<String>, text: &str) {
    if to.len() + text.len() > to.capacity() {
        let mut grown = Zeroizing::new(String::with_capacity(2 * (to.len() + text.len())));
        grown.push_str(to);
        *to = grown;
    }
    to.push_str(text);
}

/// Reads `{"name": "..", "arguments": {`, with white space anywhere.
fn header(text: &str) -> Header {
    let mut rest = text;
    let mut name = String::new();
    for wanted in ["{", "\"name\"", ":", "", ",", "\"arguments\"", ":", "{"] {
        rest = rest.trim_start();
        if wanted.is_empty() {
            let Some(quoted) = rest.strip_prefix('"') else { return more_or_other(rest) };
            let Some((inside, behind)) = quoted.split_once('"') else { return Header::More };
            inside.clone_into(&mut name);
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix(wanted) {
            rest = behind;
        } else if wanted.starts_with(rest) {
            return Header::More;
        } else {
            return Header::Other;
        }
    }
    Header::Name(name)
}

fn more_or_other(rest: &str) -> Header {
    if rest.is_empty() { Header::More } else { Header::Other }
}

/// A call in any order, with the arguments under one of the two names that models give them.
fn whole(body: &str) -> Option<(String, Zeroizing<String>)> {
    let mut value: Value = serde_json::from_str(body.trim()).ok()?;
    let arguments = value.get("arguments").or_else(|| value.get("parameters")).filter(|v| v.is_object());
    let arguments = arguments.map(|arguments| Zeroizing::new(arguments.to_string()));
    let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
    wipe(&mut value);
    name.zip(arguments)
}

/// For fuzzing: text in two pieces comes apart as it does in one.
pub(crate) fn fuzz(text: &str) {
    let callable = |several| Callable { names: vec!["f".to_owned(), "look_up".to_owned()], several };
    let cuts: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
    let (first, second) = text.split_at(cuts.get(cuts.len() / 2).copied().unwrap_or_default());
    for several in [false, true] {
        let all = |pieces: &[&str]| {
            let mut calls = Calls::new(&callable(several));
            let mut parts: Vec<_> = pieces.iter().flat_map(|piece| calls.push(piece)).collect();
            parts.extend(calls.finish());
            spelled(&parts)
        };
        assert!(all(&[text]) == all(&[first, second]), "pieces change what an answer says");
    }
}

/// Parts in a form that can be compared.
fn spelled(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(more) => text.push_str(more),
            Part::Call { index, name } => text.push_str(&format!("\u{1}{index}:{name}=")),
            Part::Arguments { text: more, .. } => text.push_str(more),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, several: bool) -> String {
        fuzz(text);
        let mut calls = Calls::new(&Callable { names: vec!["f".to_owned(), "look_up".to_owned()], several });
        let mut parts: Vec<_> = text.chars().flat_map(|c| calls.push(c.encode_utf8(&mut [0; 4]))).collect();
        parts.extend(calls.finish());
        spelled(&parts)
    }

    #[test]
    fn calls_are_taken_out_of_text() {
        let call = |name: &str, arguments: &str| {
            format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
        };
        let one = call("f", "{\"a\": \"}\\\"{\", \"b\": [{}]}");
        assert_eq!(parsed(&one, true), "\u{1}0:f={\"a\": \"}\\\"{\", \"b\": [{}]}");
        assert_eq!(
            parsed(&format!("Wait. \n{one}\n\n"), true),
            "Wait.\u{1}0:f={\"a\": \"}\\\"{\", \"b\": [{}]}"
        );
        let two = format!("{}\n{}", call("f", "{}"), call("look_up", "{\"é\":1}"));
        assert_eq!(parsed(&two, true), "\u{1}0:f={}\u{1}1:look_up={\"é\":1}");
        assert_eq!(parsed(&two, false), "\u{1}0:f={}");
        assert_eq!(parsed(&format!("{}\nDone.", call("f", "{}")), true), "\u{1}0:f={}\nDone.");
    }

    #[test]
    fn other_orders_and_names_of_fields_are_calls_too() {
        for body in [
            "{\"arguments\": {\"a\": 1}, \"name\": \"f\"}",
            " {\n\"name\":\"f\" , \"parameters\" : {\"a\":1} } ",
            "{\"name\": \"f\", \"id\": 7, \"arguments\": {\"a\": 1}}",
        ] {
            assert_eq!(
                parsed(&format!("<tool_call>{body}</tool_call>"), true),
                "\u{1}0:f={\"a\":1}",
                "{body}"
            );
            assert_eq!(parsed(&format!("<tool_call>{body}"), true), "\u{1}0:f={\"a\":1}", "{body}");
        }
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in [
            "",
            "plain",
            "a < b <tool <tool_call",
            " \n ",
            "<tool_call>",
            "<tool_call></tool_call>",
            "<tool_call>nonsense</tool_call>!",
            "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
            "<tool_call>{\"name\": \"f\"}</tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": 5}</tool_call>",
            "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>",
        ] {
            assert_eq!(parsed(text, true), text);
        }
        let long = format!("{}x", " ".repeat(3 * MAX_HELD));
        assert_eq!(parsed(&long, true), long);
        let endless = format!("<tool_call>{}", "x".repeat(MAX_WHOLE + 10));
        assert_eq!(parsed(&endless, true), endless);
        let slow = format!("<tool_call>{{\"name\": \"{}", "f".repeat(2 * MAX_HEADER));
        assert_eq!(parsed(&slow, true), slow);
    }

    #[test]
    fn a_call_that_breaks_off_is_told_as_far_as_it_came() {
        let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"b";
        assert_eq!(parsed(text, true), "\u{1}0:f={\"a\": \"b");
    }
}
