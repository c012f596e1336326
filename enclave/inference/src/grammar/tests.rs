//! Rules on a vocabulary of single bytes and one end token.

use super::*;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// One for all: its tokens have other numbers each time it is made.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::of_bytes("gpt-2").unwrap());
    &TOKENIZER
}

const END: u32 = 0;

fn schema(schema: Value) -> Rules {
    Rules::Schema(schema)
}

fn compile(rules: &Rules) -> Result<Grammar, GrammarError> {
    Grammars::new(tokenizer()).compile(rules)
}

/// Tokens that may follow.
fn next(grammar: &mut dyn TokenMask, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut set = TokenSet::new(tokenizer.vocabulary());
    grammar.allowed(&mut set);
    (0..u32::try_from(tokenizer.vocabulary()).unwrap()).filter(|id| set.contains(*id)).collect()
}

/// Whether rules allow this text as a whole answer.
fn allows(rules: &Rules, text: &str) -> bool {
    let tokenizer = tokenizer();
    let mut grammar = compile(rules).unwrap();
    let tokens = tokenizer.encode(&[crate::tokenizer::Piece::Text(text)]).unwrap();
    for token in tokens.as_slice().iter().chain([&END]) {
        if !next(&mut grammar, tokenizer).contains(token) {
            return false;
        }
        grammar.accept(*token);
    }
    true
}

/// An answer of random allowed tokens, the end as soon as it is allowed.
fn wander(grammar: &mut dyn TokenMask, seed: u64) -> String {
    let tokenizer = tokenizer();
    let (mut state, mut bytes) = (seed, Vec::new());
    for _ in 0..5000 {
        let mut allowed = next(grammar, tokenizer);
        allowed.sort_by_key(|id| tokenizer.bytes(*id)); // the same walk in every run
        if allowed.contains(&END) {
            return String::from_utf8(bytes).unwrap();
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Quotes and braces more often: strings and objects end some time.
        let closing = allowed.iter().copied().find(|id| matches!(tokenizer.bytes(*id), b"\"" | b"}" | b"]"));
        let at = usize::try_from(state >> 33).unwrap();
        let token = closing.filter(|_| at % 4 == 0).unwrap_or(allowed[at % allowed.len()]);
        grammar.accept(token);
        bytes.extend_from_slice(tokenizer.bytes(token));
    }
    panic!("it does not end: {}", String::from_utf8_lossy(&bytes));
}

fn person() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Person", "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 8 },
            "age": { "type": "integer", "minimum": 0, "maximum": 130 },
            "mood": { "enum": ["good", "bad", null] },
            "next": { "anyOf": [{ "$ref": "#/$defs/other" }, { "type": "null" }] },
        },
        "required": ["name", "age", "mood", "next"], "additionalProperties": false,
        "$defs": { "other": { "type": "object", "properties": { "id": { "type": "string", "pattern": "^[a-f]{4}$" } },
                               "required": ["id"], "additionalProperties": false } },
    })
}

#[test]
fn answers_keep_to_their_schema() {
    let compiled = compile(&schema(person())).unwrap();
    for seed in 0..40 {
        let text = wander(compiled.copy().as_mut(), seed);
        let value: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "age", "mood", "next"], "in the order of the schema: {text}");
        assert!((1..=8).contains(&value["name"].as_str().unwrap().chars().count()), "{text}");
        assert!(value["age"].as_u64().unwrap() <= 130, "{text}");
        assert!(["\"good\"", "\"bad\"", "null"].contains(&value["mood"].to_string().as_str()), "{text}");
        assert!(value["next"].is_null() || value["next"]["id"].as_str().unwrap().len() == 4, "{text}");
    }
}

#[test]
fn any_object_is_json() {
    let compiled = compile(&Rules::Object).unwrap();
    for seed in 0..40 {
        let text = wander(compiled.copy().as_mut(), seed);
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => assert!(value.is_object(), "{text}"),
            // 1e999 is JSON all the same.
            Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}: {text}"),
        }
    }
    assert!(allows(&Rules::Object, "{\"a\": [1, -2.5e3, \"\\n é\", null],\n  \"b\": {}}"));
    for text in ["", " {}", "[]", "5", "{", "{\"a\":}", "{} ", "{\"a\":   1}", "{\"a\":\n\n1}"] {
        assert!(!allows(&Rules::Object, text), "{text}");
    }
}

#[test]
fn the_end_is_allowed_where_the_rules_are_kept_and_nothing_else_behind_it() {
    let tokenizer = tokenizer();
    let rules = schema(json!({ "type": "object", "properties": {}, "additionalProperties": false }));
    let mut grammar = compile(&rules).unwrap();
    let open = next(&mut grammar, tokenizer);
    assert!(!open.contains(&END) && open.iter().all(|id| tokenizer.bytes(*id) == b"{"));
    grammar.accept(open[0]);
    let close = next(&mut grammar, tokenizer).into_iter().find(|id| tokenizer.bytes(*id) == b"}").unwrap();
    assert!(!next(&mut grammar, tokenizer).contains(&END));
    grammar.accept(close);
    assert_eq!(next(&mut grammar, tokenizer), [END]);
}

#[test]
fn a_token_that_was_not_allowed_ends_it() {
    let tokenizer = tokenizer();
    let mut grammar = compile(&Rules::Object).unwrap();
    let wrong = (0..256).find(|id| tokenizer.bytes(*id) == b"x").unwrap();
    grammar.accept(wrong);
    assert_eq!(next(&mut grammar, tokenizer), Vec::<u32>::new());
}

#[test]
fn copies_go_their_own_ways() {
    let tokenizer = tokenizer();
    let first = compile(&Rules::Object).unwrap();
    let mut second = first.copy();
    let open = next(second.as_mut(), tokenizer)[0];
    second.accept(open);
    let mut third = second.copy();
    assert_eq!(next(first.copy().as_mut(), tokenizer), [open]);
    assert_eq!(next(second.as_mut(), tokenizer), next(third.as_mut(), tokenizer));
}

fn tools(several: bool) -> Rules {
    let tool = |name: &str, parameters: Value| Tool { name: name.to_owned(), parameters };
    let item = json!({ "type": "object", "properties": { "x": { "$ref": "#/$defs/x" } }, "required": ["x"],
                       "additionalProperties": false, "$defs": { "x": { "type": "boolean" } } });
    let none = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    Rules::Calls { tools: vec![tool("get_x", item), tool("get-y", none)], several }
}

#[test]
fn calls_are_of_known_tools_with_their_arguments() {
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
    };
    let (x, y) = (call("get_x", "{\"x\": true}"), call("get-y", "{}"));
    for several in [false, true] {
        assert!(allows(&tools(several), &x) && allows(&tools(several), &y));
        assert_eq!(allows(&tools(several), &format!("{x}\n{y}")), several);
        for wrong in [
            call("get_z", "{}"),
            call("get_x", "{}"),
            call("get-y", "{\"x\": true}"),
            String::new(),
            "hi".into(),
        ] {
            assert!(!allows(&tools(several), &wrong), "{wrong}");
        }
    }
    let most = [y.as_str(); MAX_CALLS].join("\n");
    assert!(allows(&tools(true), &most) && !allows(&tools(true), &format!("{most}\n{y}")));
    for seed in 0..10 {
        let text = wander(compile(&tools(false)).unwrap().copy().as_mut(), seed);
        assert!(
            text.starts_with("<tool_call>\n{\"name\": \"get") && text.ends_with("}\n</tool_call>"),
            "{text}"
        );
    }
    for name in ["", "a b", "a\"", "é", &"x".repeat(65)] {
        let tool = Tool { name: name.to_owned(), parameters: json!({ "type": "object" }) };
        let refused = compile(&Rules::Calls { tools: vec![tool], several: false }).err();
        assert_eq!(refused, Some(GrammarError::BadName), "{name}");
    }
}

#[test]
fn what_cannot_be_kept_to_is_refused_by_name() {
    let refused = |value: Value| compile(&schema(value)).err();
    let property = |value: Value| json!({ "type": "object", "properties": { "a": value } });
    use GrammarError::{BadValue, Contradiction, Invalid, UnknownKeyword, Unsupported};
    for (value, error) in [
        (property(json!({ "not": {} })), Unsupported("not")),
        (property(json!({ "if": {}, "then": {} })), Unsupported("if")),
        (
            property(json!({ "type": "array", "items": { "dependentRequired": {} } })),
            Unsupported("dependentRequired"),
        ),
        (property(json!({ "type": "string", "format": "iri" })), Unsupported("format")),
        (property(json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] })), Unsupported("oneOf")),
        (property(json!({ "$ref": "https://example.com/schema" })), Unsupported("$ref")),
        (json!({ "$schema": "https://example.com/own", "type": "object" }), Unsupported("$schema")),
        (json!({ "type": "object", "x-guidance": { "lenient": true } }), UnknownKeyword),
        (property(json!({ "anyOf": [{ "secret": 1 }] })), UnknownKeyword),
        (json!(true), BadValue("schema")),
        (json!({ "properties": [] }), BadValue("properties")),
        (json!({ "anyOf": {} }), BadValue("anyOf")),
        (json!({ "additionalProperties": "secret" }), BadValue("additionalProperties")),
        (property(json!({ "minLength": -1 })), BadValue("minLength")),
        (property(json!({ "maxItems": 100_001 })), BadValue("maxItems")),
        (property(json!({ "pattern": 1 })), BadValue("pattern")),
        (property(json!({ "$ref": 1 })), BadValue("$ref")),
        (property(json!({ "enum": "secret" })), BadValue("enum")),
        (property(json!({ "multipleOf": 0 })), BadValue("multipleOf")),
        (property(json!({ "multipleOf": -0.5 })), BadValue("multipleOf")),
        (property(json!({ "maximum": "secret" })), BadValue("maximum")),
        (json!({ "type": "string", "minLength": 3, "maxLength": 2 }), Contradiction),
        (json!({ "type": "secret" }), Invalid),
        (property(json!({ "$ref": "#/$defs/secret" })), Invalid),
        (property(json!({ "type": "string", "pattern": "(secret" })), Invalid),
    ] {
        let got = refused(value.clone());
        assert!(got == Some(error), "{value}: {got:?}");
        assert!(!got.unwrap().to_string().contains("secret"), "{value}");
    }
}

#[test]
fn what_the_library_would_let_through_is_refused_by_name() {
    let refused = |value: Value| match compile(&schema(json!({ "properties": { "a": value } }))).err() {
        Some(GrammarError::NotKept { keyword, .. }) => keyword,
        None => "",
        Some(other) => panic!("{other}"),
    };
    let whole = 1_i64 << 53;
    for (value, keyword) in [
        // Identifiers of 64 bits are common; the library has floats.
        (json!({ "const": whole }), ""),
        (json!({ "const": whole + 1 }), "const"),
        (json!({ "enum": [1, { "a": [-whole - 1] }] }), "enum"),
        (json!({ "type": "integer", "minimum": whole + 1 }), "minimum"),
        (json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }), ""),
        // No other names are known to differ from each other.
        (json!({ "minProperties": 1 }), ""),
        (json!({ "minProperties": 2 }), "minProperties"),
        (json!({ "minProperties": 2, "required": ["a"] }), ""),
        (json!({ "minProperties": 3, "required": ["a", "a"] }), "minProperties"),
        (json!({ "properties": { "a": {}, "b": {} }, "maxProperties": 1 }), "properties"),
        // What the library takes for another name than it is.
        (json!({ "$ref": "#/$defs/a~1b", "$defs": { "a~1b": {} } }), "$ref"),
        (json!({ "$ref": "#/$defs/%61", "$defs": { "%61": {} } }), "$ref"),
        (json!({ "$ref": "#/" }), "$ref"),
        (json!({ "$id": "https://example.com/inner" }), "$id"),
        (json!({ "$id": "#/properties/a" }), ""),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), "$schema"),
        (json!({ "prefixItems": [{}], "additionalItems": false }), "prefixItems"),
        // Computed in 32 bits.
        (json!({ "allOf": [{ "multipleOf": 65_535 }, { "multipleOf": 0.01 }] }), "multipleOf"),
        (json!({ "allOf": [{ "multipleOf": 7 }, { "multipleOf": 0.01 }] }), ""),
        (json!({ "multipleOf": 300_000_000 }), ""),
        (json!({ "multipleOf": 300_000_001 }), "multipleOf"),
        (json!({ "multipleOf": 0.07 }), "multipleOf"), // a float a little above it
        (json!({ "const": "\u{1}" }), "const"),
        (json!({ "const": "\n\u{8}" }), ""),
    ] {
        assert_eq!(refused(value.clone()), keyword, "{value}");
    }
}

#[test]
fn what_the_library_would_let_through_is_kept_out() {
    let of = |format: &str| json!({ "type": "string", "format": format });
    let named = json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "additionalProperties": { "type": "null" } });
    let long = |local: usize, domain: usize| format!("\"{}@{}\"", "a".repeat(local), "b".repeat(domain));
    for (value, right, wrong) in [
        (json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 0.5 }), "0.25", "0"),
        (json!({ "type": "number", "exclusiveMaximum": -3, "minimum": -3.5 }), "-3.25", "-3"),
        (
            json!({ "$schema": "http://json-schema.org/draft-04/schema", "type": "number",
                 "minimum": 0, "exclusiveMinimum": true, "maximum": 0.5 }),
            "0.5",
            "0",
        ),
        (json!({ "type": "integer", "multipleOf": 300_000_000 }), "900000000", "900000001"),
        (json!({ "type": "number", "multipleOf": 0.01, "maximum": 1 }), "0.14", "0.145"),
        (
            json!({ "allOf": [{ "type": "integer", "multipleOf": 60 }, { "multipleOf": 700 }] }),
            "2100",
            "1400",
        ),
        (json!({ "type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6 }), "5", "6"),
        (named, r#"{"a":1, "b":null}"#, r#"{"a":1, "\u0061":null}"#),
        (of("date"), "\"2024-02-29\"", "\"2023-02-29\""),
        (of("date"), "\"2000-02-29\"", "\"1900-02-29\""),
        (of("date"), "\"2023-10-31\"", "\"2023-11-31\""),
        (of("date-time"), "\"2023-02-28T23:59:59.5Z\"", "\"2023-02-29T23:59:59Z\""),
        (of("date-time"), "\"2024-02-29t00:00:00+01:00\"", "\"2024-02-29t00:00:60+01:00\""),
        (of("time"), "\"00:43:59Z\"", "\"00:43:60Z\""),
        (of("email"), &long(64, 63), &long(65, 63)),
        (of("email"), "\"a.b@c.d\"", &long(64, 64)),
        (of("hostname"), "\"a.b\"", &format!("\"{}a\"", "a.".repeat(127))),
    ] {
        let rules = schema(value.clone());
        assert!(allows(&rules, right), "{value} {right}");
        assert!(!allows(&rules, wrong), "{value} {wrong}");
    }
}

#[test]
fn sizes_hold_at_the_limit_and_one_over() {
    let refused = |value: &Value| schema::check(value).err();
    let of_size = |bytes: usize| json!({ "description": "x".repeat(bytes - "{\"description\":\"\"}".len()) });
    assert_eq!(refused(&of_size(MAX_SCHEMA_BYTES)), None);
    let error = refused(&of_size(MAX_SCHEMA_BYTES + 1));
    assert_eq!(error, Some(GrammarError::TooLarge { what: "bytes", max: MAX_SCHEMA_BYTES }));
    let of_depth = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "items": inner }));
    assert_eq!(refused(&of_depth(MAX_SCHEMA_DEPTH)), None);
    let error = refused(&of_depth(MAX_SCHEMA_DEPTH + 1));
    assert_eq!(error, Some(GrammarError::TooLarge { what: "levels", max: MAX_SCHEMA_DEPTH }));
    let pattern = |bytes: usize| json!({ "pattern": "x".repeat(bytes) });
    assert_eq!(refused(&pattern(1024)), None);
    assert!(matches!(refused(&pattern(1025)), Some(GrammarError::TooLarge { .. })));
    let choices = |n: usize| json!({ "anyOf": [{ "enum": vec![1; n / 2] }, { "enum": vec![1; n - n / 2] }] });
    assert_eq!(refused(&choices(4096)), None);
    assert!(matches!(refused(&choices(4097)), Some(GrammarError::TooLarge { .. })));
}

/// A schema or a regular expression that is made to take long is refused, or its tokens are found in a bounded time.
#[test]
fn bombs_do_not_go_off() {
    let of = |value: Value| json!({ "type": "object", "properties": { "a": value }, "required": ["a"] });
    let pattern = |pattern: &str| of(json!({ "type": "string", "pattern": pattern }));
    let nested = (0..14).fold(
        json!({ "type": "string" }),
        |inner, _| json!({ "anyOf": [inner.clone(), { "type": "array", "items": inner }] }),
    );
    let words: Vec<String> = (0..4000).map(|i| format!("{i}")).collect();
    let many: serde_json::Map<_, _> =
        (0..500).map(|i| (format!("p{i}"), json!({ "type": "string" }))).collect();
    let bombs = [
        pattern("(a?){500}a{500}"),
        pattern("((a|b)*c){20}(x+x+)+y"),
        pattern("(.*){64}[^a]{900}"),
        pattern("((((.{9}){9}){9}){9}){9}"),
        of(json!({ "type": "array", "minItems": 100_000, "items": { "type": "integer" } })),
        of(json!({ "type": "string", "minLength": 100_000 })),
        of(json!({ "type": "string", "minLength": 99_999, "maxLength": 100_000 })),
        of(json!({ "enum": words })),
        of(json!({ "type": "object", "properties": many, "minProperties": 250 })),
        of(json!({ "type": "number", "multipleOf": 0.000_001, "minimum": 0.000_000_1, "maximum": 1e300 })),
        of(nested.clone()),
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }] } } }),
        json!({ "anyOf": (0..200).map(|i| json!({ "type": "object", "patternProperties": { format!("^a{i}.*b*"): {} } })).collect::<Vec<_>>() }),
    ];
    let grammars = Grammars::new(tokenizer());
    let (tokenizer, patience) = (tokenizer(), Duration::from_secs(5));
    for (number, bomb) in bombs.into_iter().enumerate() {
        let started = Instant::now();
        let compiled = grammars.compile(&schema(bomb));
        assert!(started.elapsed() < patience, "compiling bomb {number} took {:?}", started.elapsed());
        let Ok(mut grammar) = compiled else { continue };
        for _ in 0..200 {
            let started = Instant::now();
            let allowed = next(&mut grammar, tokenizer);
            assert!(
                started.elapsed() < patience / 10,
                "a token of bomb {number} took {:?}",
                started.elapsed()
            );
            let Some(token) = allowed.last() else { break };
            grammar.accept(*token);
        }
    }
}

#[test]
fn special_tokens_are_never_allowed() {
    let model = crate::Model::load(crate::ModelBytes::from_vec(crate::testing::tiny_model())).unwrap();
    let mut grammar = model.grammar(&Rules::Object).unwrap();
    for text in ["{", "\""] {
        let tokens = model.tokenizer.encode(&[crate::tokenizer::Piece::Text(text)]).unwrap();
        grammar.accept(tokens.as_slice()[0]);
    }
    // In a string all text may follow, of all tokens but <|im_start|> and <|im_end|>.
    let allowed = next(&mut grammar, &model.tokenizer);
    assert!(allowed.len() > 150 && allowed.iter().all(|id| *id > 1));
}
