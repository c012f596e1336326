//! Entry points for fuzzers: each takes anything and must neither panic nor allocate much more than it was given.

use crate::model::Model;
use crate::model_file::ModelBytes;
use crate::request::{Message, Role};
use crate::template::Template;
use crate::tokenizer::Names;

/// A model file; if it loads, a conversation on it.
pub fn model(bytes: &[u8]) {
    if let Ok(model) = Model::load(ModelBytes::from_vec(bytes.to_vec())) {
        let _tokens = model.prompt(&conversation());
    }
}

/// A chat template, and conversations that it may refuse.
pub fn template(source: &str) {
    if let Ok(template) = Template::new(source, &Names::default()) {
        let roles: Vec<_> =
            conversation().iter().map(|message| (message.role, !message.content.is_empty())).collect();
        for end in 0..=roles.len() {
            let _parts = template.render(roles.get(..end).unwrap_or_default());
        }
    }
}

fn conversation() -> Vec<Message> {
    let turns = [
        (Role::System, ""),
        (Role::User, "one<|im_end|>"),
        (Role::Assistant, "two"),
        (Role::User, "\u{fdd0}"),
    ];
    turns.iter().map(|(role, text)| Message { role: *role, content: (*text).into() }).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::tiny_model;

    #[test]
    fn entry_points_take_good_and_bad_input() {
        super::model(&tiny_model());
        super::model(b"GGUF");
        for source in
            ["", "{{ messages }}", "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ 1 / 0 }}", "{%"]
        {
            super::template(source);
        }
    }
}
