//! Methods of Python's strings and dicts that chat templates call: they are written for Jinja in Python.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// A method that the template engine itself does not have.
pub(super) fn method(
    _: &State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => string(text, name, arguments),
        (None, ValueKind::Map) => map(value, name, arguments),
        _ => Err(unknown(name)),
    }
}

fn string(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let argument = |at: usize| arguments.get(at).and_then(Value::as_str);
    let is_any = |test: &dyn Fn(&str) -> bool| match arguments {
        [one] => match one.as_str() {
            Some(affix) => Ok(test(affix)),
            // A tuple: any of them.
            None => Ok(one.try_iter()?.any(|affix| affix.as_str().is_some_and(test))),
        },
        _ => Err(unknown(name)),
    };
    Ok(match (name, arguments) {
        ("strip", []) => text.trim().into(),
        ("lstrip", []) => text.trim_start().into(),
        ("rstrip", []) => text.trim_end().into(),
        ("strip" | "lstrip" | "rstrip", [_]) => {
            let of = argument(0).ok_or_else(|| unknown(name))?;
            let cut = |c: char| of.contains(c);
            match name {
                "strip" => text.trim_matches(cut).into(),
                "lstrip" => text.trim_start_matches(cut).into(),
                _ => text.trim_end_matches(cut).into(),
            }
        }
        ("startswith", _) => is_any(&|affix| text.starts_with(affix))?.into(),
        ("endswith", _) => is_any(&|affix| text.ends_with(affix))?.into(),
        ("upper", []) => text.to_uppercase().into(),
        ("lower", []) => text.to_lowercase().into(),
        ("capitalize", []) => {
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
            (first + &chars.as_str().to_lowercase()).into()
        }
        ("split", []) => text.split_whitespace().collect(),
        ("split", [_]) => match argument(0).filter(|by| !by.is_empty()) {
            Some(by) => text.split(by).collect(),
            None => return Err(unknown(name)),
        },
        ("replace", [_, _]) => match (argument(0).filter(|from| !from.is_empty()), argument(1)) {
            (Some(from), Some(to)) => text.replace(from, to).into(),
            _ => return Err(unknown(name)),
        },
        _ => return Err(unknown(name)),
    })
}

fn map(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (name, arguments) {
        ("get", [key, default @ ..]) if default.len() < 2 => {
            let found = value.get_item(key)?;
            let default = || default.first().cloned().unwrap_or_else(|| Value::from(()));
            Ok(if found.is_undefined() { default() } else { found })
        }
        ("keys", []) => Ok(value.try_iter()?.collect()),
        ("values", []) => value.try_iter()?.map(|key| value.get_item(&key)).collect(),
        ("items", []) => {
            let pair = |key: Value| Ok([key.clone(), value.get_item(&key)?].into_iter().collect::<Value>());
            value.try_iter()?.map(pair).collect()
        }
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("`{name}` with these arguments"))
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    fn render(source: &str) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(super::method);
        environment.render_str(source, ())
    }

    #[test]
    fn methods_are_those_of_python() {
        for (source, result) in [
            ("'  a '.strip()", "a"),
            ("'xxaxx'.strip('x')", "a"),
            ("'\\n\\na\\n'.lstrip('\\n')|tojson", "\"a\\n\""),
            ("'abx'.rstrip('xb')", "a"),
            ("'abc'.startswith('ab')", "True"),
            ("'abc'.startswith(('x', 'a'))", "True"),
            ("'abc'.endswith('b')", "False"),
            ("'a</t>b</t>c'.split('</t>')[-1]", "c"),
            ("' a  b '.split()|length", "2"),
            ("'aXbX'.replace('X', '-')", "a-b-"),
            ("'hELLO'.capitalize()", "Hello"),
            ("'aB'.upper() + 'aB'.lower()", "ABab"),
            ("{'a': 1}.get('a')", "1"),
            ("{'a': 1}.get('b') is none", "True"),
            ("{'a': 1}.get('b', 2)", "2"),
            ("{'a': 1}.items()|list", "[[\"a\", 1]]"),
            ("{'a': 1}.keys()|list", "[\"a\"]"),
            ("{'a': 1}.values()|list", "[1]"),
        ] {
            assert_eq!(render(&format!("{{{{ {source} }}}}")).unwrap(), result, "{source}");
        }
    }

    #[test]
    fn what_is_unknown_is_an_error() {
        for source in [
            "'a'.strip(1)",
            "'a'.split('')",
            "'a'.replace('', 'b')",
            "'a'.format(1)",
            "[1].append(2)",
            "{}.pop('a')",
            "1.strip()",
            "'a'.startswith()",
        ] {
            assert!(render(&format!("{{{{ {source} }}}}")).is_err(), "{source}");
        }
    }
}
