//! What of JSON Schema an answer can be held to. Looked at before the library is: it ignores what it does not know.

use super::{GrammarError, numbers};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Bytes of a schema, written without white space.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Levels of objects and arrays in a schema: the library calls itself for each.
pub const MAX_SCHEMA_DEPTH: usize = 32;
/// Bytes of a regular expression.
const MAX_PATTERN_BYTES: usize = 1024;
/// Values of an enumeration, of all in a schema together.
const MAX_CHOICES: usize = 4096;
/// Counts of characters, items and properties.
const MAX_COUNT: u64 = 100_000;

/// Drafts that are told apart.
const DRAFTS: [&str; 5] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
];

/// What a keyword of a schema holds.
pub(super) enum Holds {
    /// A schema.
    Schema,
    /// An array of schemas.
    Schemas,
    /// An object of schemas.
    Named,
    /// A schema or an array of them, as older drafts have it.
    OneOrMore,
    /// A regular expression.
    Pattern,
    /// A count.
    Count,
    /// A reference within the schema.
    Reference,
    /// The name of a schema, from which references within it would count.
    Identity,
    /// Values that an answer may be.
    Choices,
    /// A value that an answer may be.
    Choice,
    /// A number, or in the oldest draft a truth.
    Bound,
    /// What a number is a multiple of.
    Multiple,
    /// The draft of JSON Schema.
    Draft,
    /// What the library looks at by itself.
    Other,
    /// Nothing that an answer is held to.
    Nothing,
}

pub(super) fn supported(keyword: &str) -> Option<(&'static str, Holds)> {
    const KEYWORDS: [(&str, Holds); 38] = [
        ("type", Holds::Other),
        ("properties", Holds::Named),
        ("required", Holds::Other),
        ("additionalProperties", Holds::Schema),
        ("patternProperties", Holds::Named),
        ("minProperties", Holds::Count),
        ("maxProperties", Holds::Count),
        ("items", Holds::OneOrMore),
        ("additionalItems", Holds::Schema),
        ("prefixItems", Holds::Schemas),
        ("minItems", Holds::Count),
        ("maxItems", Holds::Count),
        ("minLength", Holds::Count),
        ("maxLength", Holds::Count),
        ("pattern", Holds::Pattern),
        ("format", Holds::Other),
        ("minimum", Holds::Bound),
        ("maximum", Holds::Bound),
        ("exclusiveMinimum", Holds::Bound),
        ("exclusiveMaximum", Holds::Bound),
        ("multipleOf", Holds::Multiple),
        ("enum", Holds::Choices),
        ("const", Holds::Choice),
        ("anyOf", Holds::Schemas),
        ("oneOf", Holds::Schemas),
        ("allOf", Holds::Schemas),
        ("$ref", Holds::Reference),
        ("$defs", Holds::Named),
        ("definitions", Holds::Named),
        ("$schema", Holds::Draft),
        ("$id", Holds::Identity),
        ("$comment", Holds::Nothing),
        ("title", Holds::Nothing),
        ("description", Holds::Nothing),
        ("default", Holds::Nothing),
        ("examples", Holds::Nothing),
        ("readOnly", Holds::Nothing),
        ("writeOnly", Holds::Nothing),
    ];
    KEYWORDS.into_iter().find(|(name, _)| *name == keyword)
}

/// Keywords of JSON Schema that an answer cannot be held to.
const UNSUPPORTED: [&str; 22] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedProperties",
];

/// Refuses what an answer could not be held to, and what is too large to try.
pub(super) fn check(schema: &Value) -> Result<(), GrammarError> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(GrammarError::TooLarge { what: "bytes", max: MAX_SCHEMA_BYTES });
    }
    if depth(schema) > MAX_SCHEMA_DEPTH {
        return Err(GrammarError::TooLarge { what: "levels", max: MAX_SCHEMA_DEPTH });
    }
    let Value::Object(fields) = schema else { return Err(GrammarError::BadValue("schema")) };
    let draft = fields.get("$schema").and_then(Value::as_str).unwrap_or(DRAFTS[0]);
    let mut seen = Seen { draft, choices: 0, multiples: Vec::new() };
    // The name of the whole changes nothing: a reference can only be to the whole.
    for (keyword, value) in fields.iter().filter(|(keyword, _)| *keyword != "$id") {
        seen.keyword(keyword, value)?;
    }
    check_together(fields)?;
    if seen.choices > MAX_CHOICES {
        return Err(GrammarError::TooLarge { what: "values of `enum`", max: MAX_CHOICES });
    }
    if !numbers::fit_together(&seen.multiples) {
        return Err(GrammarError::NotKept { keyword: "multipleOf", what: "numbers too far from each other" });
    }
    Ok(())
}

/// Levels; those of a parsed body are bounded by its parser.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// What was seen of a schema so far.
struct Seen<'a> {
    draft: &'a str,
    choices: usize,
    multiples: Vec<numbers::Decimal>,
}

impl Seen<'_> {
    fn schema(&mut self, value: &Value, keyword: &'static str) -> Result<(), GrammarError> {
        match value {
            Value::Bool(_) => Ok(()),
            Value::Object(fields) => {
                fields.iter().try_for_each(|(keyword, value)| self.keyword(keyword, value))?;
                check_together(fields)
            }
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(GrammarError::BadValue(keyword))
            }
        }
    }

    fn keyword(&mut self, keyword: &str, value: &Value) -> Result<(), GrammarError> {
        let Some((keyword, holds)) = supported(keyword) else {
            let known = UNSUPPORTED.iter().find(|name| **name == keyword);
            return Err(known.map_or(GrammarError::UnknownKeyword, |name| GrammarError::Unsupported(name)));
        };
        match (holds, value) {
            (Holds::Schema, schema) => self.schema(schema, keyword),
            (Holds::Schemas | Holds::OneOrMore, Value::Array(schemas)) => {
                schemas.iter().try_for_each(|schema| self.schema(schema, keyword))
            }
            (Holds::OneOrMore, schema) => self.schema(schema, keyword),
            (Holds::Named, Value::Object(schemas)) => {
                if keyword == "patternProperties" {
                    schemas.keys().try_for_each(|pattern| check_pattern(pattern))?;
                }
                schemas.values().try_for_each(|schema| self.schema(schema, keyword))
            }
            (Holds::Choices, Value::Array(values)) => {
                self.choices += values.len();
                values.iter().try_for_each(|value| check_choice(value, keyword))
            }
            (Holds::Multiple, Value::Number(number)) => {
                let bad = GrammarError::BadValue(keyword);
                let value = number.as_f64().filter(|value| *value > 0.0).ok_or(bad)?;
                let too_long = GrammarError::NotKept { keyword, what: "a number with too many digits" };
                self.multiples.push(numbers::Decimal::new(value).ok_or(too_long)?);
                Ok(())
            }
            (Holds::Draft, Value::String(draft))
                if draft.trim_end_matches('#') != self.draft.trim_end_matches('#') =>
            {
                Err(GrammarError::NotKept { keyword, what: "another draft than the root has" })
            }
            (holds, value) => leaf(keyword, &holds, value),
        }
    }
}

/// Keywords that are kept to alone, but not beside each other.
fn check_together(fields: &Map<String, Value>) -> Result<(), GrammarError> {
    let required = fields.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names: BTreeSet<&str> = required.iter().filter_map(Value::as_str).collect();
    // Names that the schema does not have may be written twice, so that counting them says nothing.
    if fields.get("minProperties").and_then(Value::as_u64) > Some(names.len() as u64 + 1) {
        let what = "more than one property beyond those in `required`";
        return Err(GrammarError::NotKept { keyword: "minProperties", what });
    }
    // The library takes the words of older drafts for the only ones.
    if fields.contains_key("prefixItems") && fields.contains_key("additionalItems") {
        return Err(GrammarError::NotKept { keyword: "prefixItems", what: "`additionalItems` beside it" });
    }
    Ok(())
}

/// A keyword without schemas in it.
fn leaf(keyword: &'static str, holds: &Holds, value: &Value) -> Result<(), GrammarError> {
    let bad = GrammarError::BadValue(keyword);
    match (holds, value) {
        (Holds::Pattern, Value::String(pattern)) => check_pattern(pattern),
        (Holds::Choice, value) => check_choice(value, keyword),
        (Holds::Count, Value::Number(count)) if count.as_u64().is_some_and(|count| count <= MAX_COUNT) => {
            Ok(())
        }
        (Holds::Bound, Value::Bool(_)) | (Holds::Other | Holds::Nothing, _) => Ok(()),
        (Holds::Bound, Value::Number(number)) if numbers::is_kept_bound(number) => Ok(()),
        (Holds::Bound, Value::Number(_)) => Err(GrammarError::NotKept { keyword, what: numbers::TOO_LONG }),
        (Holds::Reference, Value::String(to)) => check_reference(to),
        // References in what has a name of its own count from there, which the library does not know.
        (Holds::Identity, Value::String(name)) if name.starts_with('#') => Ok(()),
        (Holds::Identity, Value::String(_)) => {
            Err(GrammarError::NotKept { keyword, what: "a place other than the root" })
        }
        (Holds::Draft, Value::String(draft)) if DRAFTS.contains(&draft.trim_end_matches('#')) => Ok(()),
        (Holds::Draft, _) => Err(GrammarError::Unsupported(keyword)),
        _ => Err(bad),
    }
}

fn check_pattern(pattern: &str) -> Result<(), GrammarError> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(GrammarError::TooLarge { what: "bytes of a `pattern`", max: MAX_PATTERN_BYTES });
    }
    Ok(())
}

/// Other documents are not fetched: the enclave asks nobody. The library takes the names in a reference as they are written.
fn check_reference(to: &str) -> Result<(), GrammarError> {
    let keyword = "$ref";
    match to.strip_prefix("#/") {
        Some(names) if names.is_empty() || names.contains(['~', '%']) => {
            Err(GrammarError::NotKept { keyword, what: "a name that is empty or has `/`, `~` or `%`" })
        }
        None if to != "#" => Err(GrammarError::Unsupported(keyword)),
        Some(_) | None => Ok(()),
    }
}

/// A value that an answer may be is written as the library writes it.
fn check_choice(value: &Value, keyword: &'static str) -> Result<(), GrammarError> {
    let is_written = |text: &str| {
        text.chars().all(|c| !c.is_ascii_control() || matches!(c, '\n' | '\r' | '\t' | '\u{8}' | '\u{c}'))
    };
    let what = match value {
        Value::Number(number) if !numbers::is_exact(number) => numbers::TOO_LONG,
        Value::String(text) if !is_written(text) => "a control character that has no short escape",
        Value::Array(values) => return values.iter().try_for_each(|value| check_choice(value, keyword)),
        Value::Object(fields) => return fields.values().try_for_each(|value| check_choice(value, keyword)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Ok(()),
    };
    Err(GrammarError::NotKept { keyword, what })
}
