//! Our rendering against that of Jinja in Python (`tests/vectors/templates.py`).

use super::*;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn vectors() -> Value {
    let path = root().join("tests/vectors/templates.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn conversation(turns: &Value) -> Vec<(Role, String)> {
    let role = |name: &str| match name {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    let turns: Vec<(String, String)> = serde_json::from_value(turns.clone()).unwrap();
    turns.into_iter().map(|(name, text)| (role(&name), text)).collect()
}

/// What a conversation becomes, as in the vectors.
fn render(template: &Template, turns: &[(Role, String)]) -> Value {
    let roles: Vec<_> = turns.iter().map(|(role, text)| (*role, !text.is_empty())).collect();
    let text = |part: Part| match part {
        Part::Literal(text) => text,
        Part::Content(content) => content.of(&turns[content.index].1).to_owned(),
    };
    match template.render(&roles) {
        Ok(parts) => json!({"text": parts.into_iter().map(text).collect::<String>()}),
        Err(TemplateError::Raised(message)) => json!({"raised": message}),
        Err(other) => json!({"error": other.to_string()}),
    }
}

fn template(source: &str) -> Template {
    Template::new(source, &Names { begin: "<s>".to_owned(), end: "</s>".to_owned() }).unwrap()
}

#[test]
fn templates_render_as_in_python() {
    let vectors = vectors();
    let rendered: Map<String, Value> = serde_json::from_value(vectors["rendered"].clone()).unwrap();
    assert_eq!(rendered.len(), 6);
    for (name, wanted) in rendered {
        let path = root().join("tests/vectors/templates").join(format!("{name}.jinja"));
        let template = template(&std::fs::read_to_string(path).unwrap());
        let wanted = wanted.as_array().unwrap();
        for (turns, wanted) in vectors["conversations"].as_array().unwrap().iter().zip(wanted) {
            assert_eq!(&render(&template, &conversation(turns)), wanted, "{name}: {turns}");
        }
    }
}

/// To the terminal even where the test runner keeps the output of tests: a skipped test must be seen.
#[allow(clippy::disallowed_methods, reason = "a skipped test must be seen")]
fn say(text: &str) {
    writeln!(std::io::stdout(), "{text}").unwrap();
}

#[test]
fn templates_of_real_models_render_as_in_python() {
    let vectors = vectors();
    let packages: Map<String, Value> = serde_json::from_value(vectors["packages"].clone()).unwrap();
    for (name, wanted) in packages {
        let path = root().join("target/tokenizers").join(&name).join("chat_template.jinja");
        let Ok(source) = std::fs::read_to_string(path) else {
            say(&format!("skipped: template of {name}, see tests/vectors/templates.py"));
            continue;
        };
        let template = template(&source);
        let mut same = 0;
        for (turns, wanted) in
            vectors["conversations"].as_array().unwrap().iter().zip(wanted.as_array().unwrap())
        {
            // As Python's json.dumps writes an object of one member.
            let rendered = serde_json::to_string(&render(&template, &conversation(turns))).unwrap();
            let rendered = rendered.replacen("\":\"", "\": \"", 1);
            let digest = ring::digest::digest(&ring::digest::SHA256, rendered.as_bytes());
            let digest: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            same += usize::from(&json!(digest) == wanted);
        }
        say(&format!("{name}: {same} of 10 conversations render the same"));
        assert_eq!(same, 10, "{name}");
    }
}
