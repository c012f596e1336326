//! How likely tokens were, as the OpenAI API tells it.

use cocoon_inference::{ScoredToken, TokenLogprobs};
use serde_json::{Value, json};

/// The `logprobs` of a choice.
pub(super) fn of(tokens: &[TokenLogprobs]) -> Value {
    let content = tokens.iter().map(|token| {
        let mut entry = scored(&token.chosen);
        entry["top_logprobs"] = token.top.iter().map(scored).collect();
        entry
    });
    json!({ "content": content.collect::<Value>(), "refusal": null })
}

fn scored(token: &ScoredToken) -> Value {
    json!({ "token": token.text(), "logprob": token.logprob(), "bytes": token.bytes() })
}
