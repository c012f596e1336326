//! Rules for answers: JSON, a JSON schema, calls of tools. They decide token by token what may come next.
//!
//! The work is that of the crate `llguidance`: from a schema to a grammar, and from a grammar and the vocabulary to the set of tokens
//! that may follow. Here is what it may be asked for, how much work that may be, and what its errors mean: its own texts quote
//! schemas and go nowhere.
//!
//! A grammar knows tokens by their bytes. Control tokens have none, so none of them can be written; those that end an answer are
//! allowed where the rules are kept to. What the library holds of schemas and answers is not wiped.

mod numbers;
#[cfg(test)]
mod random;
#[cfg(test)]
mod random_tests;
mod rewrite;
mod schema;
#[cfg(test)]
mod tests;

use crate::sampler::{TokenMask, TokenSet};
use crate::tokenizer::Tokenizer;
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
pub use schema::{MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH};
use serde_json::{Value, json};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longer tokens are not written under rules: the library takes no token of more than 1024 bytes. Runs of spaces are the longest known.
const MAX_TOKEN_BYTES: usize = 512;
/// Bytes of all tokens: the library's tree has at most four million nodes. Vocabularies of 256,000 tokens have two million bytes.
const MAX_VOCABULARY_BYTES: usize = (1 << 22) - 1;
/// Calls in one answer.
const MAX_CALLS: usize = 8;
/// Between the tokens of JSON: nothing, a space, or a new line with some. More, and an answer could be made of nothing else.
const WHITE_SPACE: &str = r"\x20|\x0A\x20{0,32}";
/// What may follow a backslash in a string. Without `u`: a name that the schema has could be written again with it, as another one.
const ESCAPES: &str = "nrbtf\\\"";

/// Work per grammar and per token. The library's own limits are for grammars of trusted people: these are some 20 ms to compile, 7 ms
/// for a token at the very worst (a fraction of a millisecond is usual), and 20 MB.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 100_000,
        step_max_items: 20_000,
        max_lexer_states: 10_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// What an answer must be.
#[expect(missing_debug_implementations, reason = "schemas are a client's text")]
pub enum Rules {
    /// A JSON object.
    Object,
    /// JSON that a schema describes.
    Schema(Value),
    /// Calls of these tools and nothing else: `<tool_call>`, a JSON object with `name` and `arguments`, `</tool_call>`.
    Calls {
        /// What may be called.
        tools: Vec<Tool>,
        /// Whether there may be more than one call, up to eight.
        several: bool,
    },
}

/// A tool that may be called.
#[expect(missing_debug_implementations, reason = "schemas are a client's text")]
pub struct Tool {
    /// Letters, digits, `_` and `-`.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

/// Why rules were not taken. Names keywords of JSON Schema, and quotes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// A keyword of JSON Schema that is not kept to.
    #[error("the keyword `{0}` of JSON Schema is not supported; describe what you want without it")]
    Unsupported(&'static str),
    /// Something that is no keyword of JSON Schema.
    #[error("the schema has a keyword that JSON Schema does not know; remove it")]
    UnknownKeyword,
    /// A keyword with a value that it cannot have.
    #[error("the keyword `{0}` of the schema has a value that it cannot have")]
    BadValue(&'static str),
    /// A value of a keyword that other answers than the right ones could get through.
    #[error("the keyword `{keyword}` of the schema has {what}, which answers cannot be held to")]
    NotKept {
        /// The keyword.
        keyword: &'static str,
        /// What of its value.
        what: &'static str,
    },
    /// Too many bytes or levels.
    #[error("the schema has more than {max} {what}; make it smaller")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// No answer can be right.
    #[error("nothing can satisfy the schema: its parts contradict each other")]
    Contradiction,
    /// It takes too much work.
    #[error("the schema takes too much work; make it simpler")]
    TooMuchWork,
    /// The library takes it for wrong, for a reason that would quote it.
    #[error("the schema is wrong, or has a regular expression or a reference that is not supported")]
    Invalid,
    /// A name that a tool cannot have.
    #[error("names of tools have 1 to 64 letters, digits, `_` and `-`")]
    BadName,
    /// There are no rules for this model.
    #[error("the vocabulary of this model allows no rules for answers")]
    Unavailable,
}

/// What grammars of a model have in common.
pub(crate) struct Grammars(Option<ParserFactory>);

impl Grammars {
    /// Makes a tree of the tokens. Takes some 100 ms for a large vocabulary.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        // The bytes of tokens come from a model file, which may be anything.
        let factory = catch_unwind(AssertUnwindSafe(|| factory(tokenizer)));
        Self(factory.ok().flatten())
    }

    /// Compiles rules.
    pub(crate) fn compile(&self, rules: &Rules) -> Result<Grammar, GrammarError> {
        let factory = self.0.as_ref().ok_or(GrammarError::Unavailable)?;
        let parser = factory.create_parser(grammar(rules)?).map_err(|error| reason(&error.to_string()))?;
        let mut matcher = Matcher::new(Ok(parser));
        // Here and not on the engine's thread: the first is the slowest, and rules that allow nothing are refused.
        matcher.compute_mask().map_err(|error| reason(&error.to_string()))?;
        Ok(Grammar(matcher))
    }
}

fn factory(tokenizer: &Tokenizer) -> Option<ParserFactory> {
    let ends: Vec<u32> = tokenizer.ends();
    let words: Vec<Vec<u8>> = (0..u32::try_from(tokenizer.vocabulary()).ok()?)
        .map(|id| tokenizer.bytes(id))
        .map(|bytes| if is_writable(bytes) { bytes.to_vec() } else { Vec::new() })
        .collect();
    if words.iter().map(Vec::len).sum::<usize>() > MAX_VOCABULARY_BYTES {
        return None;
    }
    let info = TokRxInfo::new(u32::try_from(words.len()).ok()?, *ends.first()?);
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
    let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices).ok()?;
    *factory.limits_mut() = limits();
    factory.quiet();
    Some(factory)
}

/// Whether a token may be written under rules. 0xFF is in no text, and the library's mark of special tokens.
fn is_writable(bytes: &[u8]) -> bool {
    bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&0xff)
}

fn grammar(rules: &Rules) -> Result<TopLevelGrammar, GrammarError> {
    match rules {
        Rules::Object => json_grammar(&json!({ "type": "object" })).map(TopLevelGrammar::from_grammar),
        Rules::Schema(schema) => json_grammar(schema).map(TopLevelGrammar::from_grammar),
        Rules::Calls { tools, several } => calls(tools, *several),
    }
}

fn json_grammar(schema: &Value) -> Result<GrammarWithLexer, GrammarError> {
    schema::check(schema)?;
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        rewrite::rewrite(fields);
        // This is how the library takes options. `check` lets no client write them.
        let options = json!({ "whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES });
        fields.insert("x-guidance".to_owned(), options);
    }
    Ok(GrammarWithLexer::from_json_schema(schema))
}

/// A grammar in the library's language, with one more for the arguments of each tool: references of a schema count from its root.
fn calls(tools: &[Tool], several: bool) -> Result<TopLevelGrammar, GrammarError> {
    let rest = if several { format!("(\"\\n\" call){{0,{}}}", MAX_CALLS - 1) } else { String::new() };
    let choice = (0..tools.len()).map(|index| format!("tool_{index}")).collect::<Vec<_>>().join(" | ");
    let mut text = format!("start: call {rest}\ncall: \"<tool_call>\\n\" ({choice}) \"\\n</tool_call>\"\n");
    let mut all = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        if !is_tool_name(&tool.name) {
            return Err(GrammarError::BadName);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            r#"tool_{index}: "{{\"name\": \"{}\", \"arguments\": " @arguments_{index} "}}""#,
            tool.name
        );
        let mut arguments = json_grammar(&tool.parameters)?;
        arguments.name = Some(format!("arguments_{index}"));
        all.push(arguments);
    }
    all.insert(0, GrammarWithLexer::from_lark(text));
    Ok(TopLevelGrammar { grammars: all, max_tokens: None })
}

/// Whether a tool may be called so: names get into grammars and templates.
pub(crate) fn is_tool_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// What an error of the library means. Its text can quote the schema.
fn reason(text: &str) -> GrammarError {
    const LEFT_OUT: &str = "some that may be left out beside `minProperties` or `maxProperties`";
    const MEANINGS: [(&str, GrammarError); 13] = [
        ("Unsatisfiable", GrammarError::Contradiction),
        ("oneOf constraints", GrammarError::Unsupported("oneOf")),
        ("Unknown format", GrammarError::Unsupported("format")),
        ("min/maxProperties", GrammarError::NotKept { keyword: "properties", what: LEFT_OUT }),
        ("patternProperty", GrammarError::Unsupported("patternProperties")),
        ("Unknown specification", GrammarError::Unsupported("$schema")),
        ("too large", GrammarError::TooMuchWork),
        ("too complex", GrammarError::TooMuchWork),
        ("too many", GrammarError::TooMuchWork),
        ("fuel", GrammarError::TooMuchWork),
        ("TooComplex", GrammarError::TooMuchWork),
        ("limit", GrammarError::TooMuchWork),
        ("NoExtensionBias", GrammarError::Contradiction),
    ];
    let meaning = MEANINGS.into_iter().find(|(part, _)| text.contains(part));
    meaning.map_or(GrammarError::Invalid, |(_, meaning)| meaning)
}

/// Compiled rules, at one place of an answer.
#[expect(missing_debug_implementations, reason = "what may come next reveals what came before")]
pub struct Grammar(Matcher);

impl TokenMask for Grammar {
    fn allowed(&mut self, allowed: &mut TokenSet) {
        // Too much work, or a token before that was not allowed: the set stays empty, and the request fails.
        let Ok(mask) = self.0.compute_mask_or_eos() else { return };
        for (word, halves) in allowed.words_mut().iter_mut().zip(mask.as_slice().chunks(2)) {
            let half = |at: usize| u64::from(halves.get(at).copied().unwrap_or_default());
            *word = half(0) | half(1) << 32;
        }
    }

    fn accept(&mut self, token: u32) {
        // An error stays with the matcher: the next set is empty.
        let _failed = self.0.consume_token(token);
    }

    fn copy(&self) -> Box<dyn TokenMask> {
        Box::new(Self(self.0.deep_clone()))
    }
}
