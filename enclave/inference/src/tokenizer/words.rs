//! How text is cut into words before their bytes are merged: the pre-tokenizers of byte-level BPE.
//!
//! Each is a list of patterns; each pattern cuts what the one before left into its matches and what is between them.
//! Sources: the files `tokenizer.json` of the models, and the names that llama.cpp's converter gives them. Where
//! llama.cpp's pattern is an approximation of the model's (it has no classes of letters), ours is the model's.

use crate::error::Error;
use fancy_regex::{Regex, RegexBuilder};
use std::ops::Range;

/// Steps back in one search. A run of white space takes one per character, and a prompt has 1 MiB at most. A run of more than
/// a million characters is an error all the same: so much does the search remember at most.
const BACKTRACK_LIMIT: usize = 4 << 20;

const NUMERAL: &str = r"\p{N}";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const NUMERALS3: &str = r"\p{N}{1,3}";
const CJK: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";
/// As in the model's `tokenizer.json`, where the line ends are themselves and not escapes.
const DEEPSEEK3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/// A pre-tokenizer by the name that GGUF files give it.
struct Known {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// Whether a word that is a token is taken whole, whatever the merges say.
    whole_words: bool,
    /// Whether a prompt begins with the first token where the file does not say.
    begins: bool,
}

const fn known(names: &'static [&'static str], patterns: &'static [&'static str]) -> Known {
    Known { names, patterns, whole_words: false, begins: false }
}

/// Every pre-tokenizer that we know. Names in one entry: the same patterns by llama.cpp's table.
const KNOWN: &[Known] = &[
    known(&["gpt-2", "phi-2", "olmo", "mpt", "jais", "exaone4", "trillion", "gigachat"], &[GPT2]),
    known(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        &[NUMERAL, GPT2],
    ),
    Known {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        whole_words: true,
        begins: true,
    },
    known(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    known(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2"], &[QWEN2]),
    known(&["qwen35"], &[QWEN35]),
    Known { names: &["tekken"], patterns: &[TEKKEN], whole_words: true, begins: true },
    known(&["gpt-4o", "llama4", "kanana2"], &[GPT4O]),
    known(&["deepseek-v3", "hunyuan-dense"], &[NUMERALS3, CJK, DEEPSEEK3]),
];

/// The names of [`KNOWN`], for errors; a test holds the two together.
const SUPPORTED: &str = "gpt-2, phi-2, olmo, mpt, jais, exaone4, trillion, gigachat, smollm, starcoder, refact, command-r, codeshell, \
    exaone, minerva-7b, llama-bpe, llama3, llama-v3, falcon3, pixtral, lfm2, dbrx, smaug-bpe, glm4, chatglm-bpe, qwen2, \
    deepseek-r1-qwen, stablelm2, megrez, hunyuan, grok-2, qwen35, tekken, gpt-4o, llama4, kanana2, deepseek-v3, hunyuan-dense";

/// A pre-tokenizer, ready to cut.
#[derive(Clone)]
pub(crate) struct Words {
    patterns: Vec<Regex>,
    pub(super) whole_words: bool,
    pub(super) begins: bool,
}

impl Words {
    /// By the name in a GGUF file.
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        let entry = KNOWN.iter().find(|known| known.names.contains(&name));
        let Some(entry) = entry else {
            let name = name.to_owned();
            return Err(Error::Unsupported { what: "pre-tokenizer", name, supported: SUPPORTED });
        };
        Self::compile(entry.patterns, entry.whole_words, entry.begins)
    }

    /// By the patterns in a `tokenizer.json`; only those of a known pre-tokenizer.
    pub(crate) fn with_patterns(patterns: &[String], whole_words: bool) -> Result<Self, Error> {
        let same = |known: &&Known| known.patterns.iter().eq(patterns.iter());
        let Some(entry) = KNOWN.iter().find(same) else {
            let name = patterns.join(" then ").chars().take(200).collect();
            let supported = "those of the models that the documentation names";
            return Err(Error::Unsupported { what: "pattern of the pre-tokenizer", name, supported });
        };
        Self::compile(entry.patterns, whole_words, false)
    }

    fn compile(patterns: &[&str], whole_words: bool, begins: bool) -> Result<Self, Error> {
        let compile = |pattern: &&str| RegexBuilder::new(pattern).backtrack_limit(BACKTRACK_LIMIT).build();
        let patterns = patterns.iter().map(compile).collect::<Result<_, _>>();
        let patterns = patterns.map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(Self { patterns, whole_words, begins })
    }

    /// Cuts text into words.
    pub(super) fn cut(&self, text: &str) -> Result<Vec<Range<usize>>, &'static str> {
        let whole = 0..text.len();
        self.patterns.iter().try_fold(vec![whole], |pieces, pattern| {
            let mut words = Vec::with_capacity(pieces.len());
            for piece in pieces {
                split(pattern, text, piece, &mut words)?;
            }
            Ok(words)
        })
    }
}

/// The pattern GPT-2 uses, which `tokenizer.json` does not spell out.
pub(crate) fn gpt2_pattern() -> String {
    GPT2.to_owned()
}

/// Digits one by one, which `tokenizer.json` does not spell out either.
pub(crate) fn digit_pattern() -> String {
    NUMERAL.to_owned()
}

/// Matches of a pattern in a piece, and what is between them.
fn split(
    pattern: &Regex,
    text: &str,
    piece: Range<usize>,
    words: &mut Vec<Range<usize>>,
) -> Result<(), &'static str> {
    let mut done = piece.start;
    for found in pattern.find_iter(text.get(piece.clone()).unwrap_or_default()) {
        let found = found.map_err(|_limit| "it is too long a run of white space")?;
        let (start, end) = (piece.start + found.start(), piece.start + found.end());
        if start > done {
            words.push(done..start);
        }
        if end > start {
            words.push(start..end);
        }
        done = end;
    }
    if done < piece.end {
        words.push(done..piece.end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(name: &str, text: &str) -> String {
        let ranges = Words::named(name).unwrap().cut(text).unwrap();
        assert_eq!(ranges.iter().map(|word| &text[word.clone()]).collect::<String>(), text);
        ranges.into_iter().map(|word| &text[word]).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn words_are_cut_as_the_names_say() {
        assert_eq!(words("smollm", "it's 12 ok"), "it|'s| |1|2| ok");
        assert_eq!(words("gpt-2", "it's 12 ok"), "it|'s| 12| ok");
        assert_eq!(words("llama-bpe", "it's 1234 ok"), "it|'s| |123|4| ok");
        assert_eq!(words("qwen2", "it'S 12 a\n\n b"), "it|'S| |1|2| a|\n\n| b");
        assert_eq!(words("tekken", "camelCase//\n 12"), "camel|Case|//\n| |1|2");
        assert_eq!(words("gpt-4o", "camelCase's 1234"), "camel|Case's| |123|4");
        assert_eq!(words("deepseek-v3", "1234漢字かな abc.Def"), "123|4|漢字かな| abc|.Def");
    }

    #[test]
    fn every_name_is_listed_once_and_compiles() {
        let names: Vec<_> = KNOWN.iter().flat_map(|known| known.names).copied().collect();
        assert_eq!(names.join(", "), SUPPORTED);
        for name in names {
            assert_eq!(words(name, ""), "");
        }
        let error = Words::named("no-such-pre").err().unwrap().to_string();
        assert!(error.contains("pre-tokenizer `no-such-pre`") && error.contains("qwen2"), "{error}");
    }

    /// Patterns are searched by backtracking where they look ahead: no text of the largest size may take long. It would take
    /// minutes if a search went over the rest of the text once for each word.
    #[test]
    fn no_text_takes_long() {
        for known in KNOWN {
            let words = Words::named(known.names[0]).unwrap();
            for part in ["A", "'", "\n ", "e\u{301}", "1", "(/", "\u{301}", " a", "ǅa", "\r\n\t", "漢", "  ?"]
            {
                let cut = words.cut(&part.repeat((1 << 20) / part.len()));
                // A run of a million is more than the search remembers.
                assert!(cut.is_ok() || part.trim().is_empty(), "{} {part:?}", known.names[0]);
            }
        }
    }

    #[test]
    fn a_prompt_of_white_space_is_cut_too() {
        for name in ["gpt-2", "llama-bpe", "tekken", "deepseek-v3"] {
            let text = format!("{}x{}", " ".repeat(1 << 19), "\t".repeat(1 << 19));
            assert!(Words::named(name).unwrap().cut(&text).unwrap().len() <= 4);
        }
    }
}
