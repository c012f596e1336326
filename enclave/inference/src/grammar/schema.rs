//! What of JSON Schema an answer can be held to. Looked at before the library is: it ignores what it does not know.

use super::GrammarError;
use serde_json::{Map, Value};

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
enum Holds {
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
    /// Values that an answer may be.
    Choices,
    /// The draft of JSON Schema.
    Draft,
    /// What the library looks at by itself.
    Other,
    /// Nothing that an answer is held to.
    Nothing,
}

fn supported(keyword: &str) -> Option<(&'static str, Holds)> {
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
        ("minimum", Holds::Other),
        ("maximum", Holds::Other),
        ("exclusiveMinimum", Holds::Other),
        ("exclusiveMaximum", Holds::Other),
        ("multipleOf", Holds::Other),
        ("enum", Holds::Choices),
        ("const", Holds::Other),
        ("anyOf", Holds::Schemas),
        ("oneOf", Holds::Schemas),
        ("allOf", Holds::Schemas),
        ("$ref", Holds::Reference),
        ("$defs", Holds::Named),
        ("definitions", Holds::Named),
        ("$schema", Holds::Draft),
        ("$id", Holds::Nothing),
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
    let mut choices = 0;
    fields_of(fields, &mut choices)?;
    if choices > MAX_CHOICES {
        return Err(GrammarError::TooLarge { what: "values of `enum`", max: MAX_CHOICES });
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

fn schema_of(value: &Value, keyword: &'static str, choices: &mut usize) -> Result<(), GrammarError> {
    match value {
        Value::Bool(_) => Ok(()),
        Value::Object(fields) => fields_of(fields, choices),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(GrammarError::BadValue(keyword))
        }
    }
}

fn fields_of(fields: &Map<String, Value>, choices: &mut usize) -> Result<(), GrammarError> {
    for (keyword, value) in fields {
        let Some((keyword, holds)) = supported(keyword) else {
            let known = UNSUPPORTED.iter().find(|name| *name == keyword);
            return Err(known.map_or(GrammarError::UnknownKeyword, |name| GrammarError::Unsupported(name)));
        };
        keyword_of(keyword, &holds, value, choices)?;
    }
    Ok(())
}

fn keyword_of(
    keyword: &'static str,
    holds: &Holds,
    value: &Value,
    choices: &mut usize,
) -> Result<(), GrammarError> {
    let bad = GrammarError::BadValue(keyword);
    match (holds, value) {
        (Holds::Schema, schema) => schema_of(schema, keyword, choices),
        (Holds::Schemas | Holds::OneOrMore, Value::Array(schemas)) => {
            schemas.iter().try_for_each(|schema| schema_of(schema, keyword, choices))
        }
        (Holds::OneOrMore, schema) => schema_of(schema, keyword, choices),
        (Holds::Named, Value::Object(schemas)) => {
            if keyword == "patternProperties" && schemas.keys().any(|key| key.len() > MAX_PATTERN_BYTES) {
                return Err(GrammarError::TooLarge { what: "bytes of a `pattern`", max: MAX_PATTERN_BYTES });
            }
            schemas.values().try_for_each(|schema| schema_of(schema, keyword, choices))
        }
        (Holds::Pattern, Value::String(pattern)) if pattern.len() > MAX_PATTERN_BYTES => {
            Err(GrammarError::TooLarge { what: "bytes of a `pattern`", max: MAX_PATTERN_BYTES })
        }
        (Holds::Pattern, Value::String(_)) | (Holds::Other | Holds::Nothing, _) => Ok(()),
        (Holds::Count, Value::Number(count)) => match count.as_u64() {
            Some(..=MAX_COUNT) => Ok(()),
            _ => Err(bad),
        },
        // Other documents are not fetched: the enclave asks nobody.
        (Holds::Reference, Value::String(to)) if to == "#" || to.starts_with("#/") => Ok(()),
        (Holds::Reference, Value::String(_)) => Err(GrammarError::Unsupported(keyword)),
        (Holds::Draft, Value::String(draft)) if DRAFTS.contains(&draft.trim_end_matches('#')) => Ok(()),
        (Holds::Draft, _) => Err(GrammarError::Unsupported(keyword)),
        (Holds::Choices, Value::Array(values)) => {
            *choices += values.len();
            Ok(())
        }
        (
            Holds::Schemas | Holds::Named | Holds::Pattern | Holds::Count | Holds::Reference | Holds::Choices,
            _,
        ) => Err(bad),
    }
}
