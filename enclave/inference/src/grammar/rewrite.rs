//! Where the library would let something else through, a schema says the same, or a little less, in other words.

use super::schema::{Holds, supported};
use serde_json::{Map, Value, json};

/// So close to a bound that excludes itself nothing is written.
const GAP: f64 = 1e-9;

/// Patterns that leave out of a format what the library's own takes in: days that there are not, leap seconds, which exist at a few
/// moments only, and names that are too long.
fn narrower(format: &str) -> &'static [&'static str] {
    const DAYS: &str = concat!(
        "^(?:.{5}(?:0[13-9]|1[0-2])|.{5}02-(?:[01][0-9]|2[0-8])|",
        "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)",
    );
    match format {
        "date" => &[DAYS],
        "time" => &["^.{6}[0-5]"],
        "date-time" => &[DAYS, "^.{17}[0-5]"],
        "email" => &["^[^@]{1,64}@[^@]{1,63}$"],
        "hostname" => &["^.{1,253}$"],
        _ => &[],
    }
}

/// Rewrites a schema that was checked.
pub(super) fn rewrite(fields: &mut Map<String, Value>) {
    for (keyword, value) in fields.iter_mut() {
        let Some((_, holds)) = supported(keyword) else { continue };
        match (holds, value) {
            (Holds::Schema | Holds::OneOrMore, Value::Object(schema)) => rewrite(schema),
            (Holds::Schemas | Holds::OneOrMore, Value::Array(schemas)) => {
                schemas.iter_mut().filter_map(Value::as_object_mut).for_each(rewrite);
            }
            (Holds::Named, Value::Object(schemas)) => {
                schemas.values_mut().filter_map(Value::as_object_mut).for_each(rewrite);
            }
            _ => (),
        }
    }
    bounds(fields);
    let patterns = fields.get("format").and_then(Value::as_str).map_or(&[][..], narrower);
    if !patterns.is_empty() {
        let more = patterns.iter().map(|pattern| json!({ "pattern": pattern }));
        let all = fields.entry("allOf").or_insert_with(|| json!([]));
        all.as_array_mut().into_iter().for_each(|all| all.extend(more.clone()));
    }
}

/// A bound that excludes a whole number would let it through where the other bound is less than one away.
fn bounds(fields: &mut Map<String, Value>) {
    for (exclusive, inclusive, up) in
        [("exclusiveMinimum", "minimum", true), ("exclusiveMaximum", "maximum", false)]
    {
        let other = fields.get(inclusive).and_then(Value::as_f64);
        let bound = match fields.get(exclusive) {
            Some(Value::Bool(true)) => other,
            Some(Value::Number(bound)) => bound.as_f64(),
            _ => None,
        };
        let Some(bound) = bound.filter(|bound| bound.fract() == 0.0) else { continue };
        let next = if up { (bound + GAP).max(bound.next_up()) } else { (bound - GAP).min(bound.next_down()) };
        let tighter = other.map_or(next, |other| if up { other.max(next) } else { other.min(next) });
        fields.remove(exclusive);
        fields.insert(inclusive.to_owned(), tighter.into());
    }
}
