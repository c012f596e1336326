//! Random schemas of what docs/api.md says is kept to.

use serde_json::{Map, Value, json};

/// Numbers that the seed decides, by SplitMix64: as many as wanted, the same in every run.
pub(super) struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    /// A number from `low` to `high`, in tenths or whole.
    fn tenths(&mut self, low: i32, high: i32) -> f64 {
        let steps = self.below(usize::try_from(10 * (high - low)).unwrap() + 1);
        f64::from(10 * low + i32::try_from(steps).unwrap()) / 10.0
    }
}

const NAMES: [&str; 14] = [
    "a",
    "b",
    "name",
    "größe",
    "名前",
    "🐈",
    "two words",
    "quo\"te",
    "back\\slash",
    "a/b",
    "~tilde",
    "new\nline",
    "",
    "0",
];
const TEXTS: [&str; 10] = ["red", "Ünï", "日本", "🐈‍⬛", "", "a \"b\" \\ /", "line\nline", "null", "1", "\t"];
const PATTERNS: [&str; 12] = [
    "^[a-z]{2,5}$",
    r"^\d{3}-\d{4}$",
    "^(foo|bar)?baz$",
    r"^\w+$",
    "[A-F]x",
    "^é+",
    "a|b$",
    r"^[^\n]{1,4}$",
    "^.{2}$",
    r#"^"\\[äöü]"$"#,
    r"^\p{Lu}\p{Ll}{0,5}$",
    r"^-?\d+(\.\d\d)?$",
];
const FORMATS: [&str; 10] =
    ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Makes one schema.
struct Maker {
    random: Random,
    /// Draft 7: arrays say what is in them in other words.
    old: bool,
}

/// The schema with this number: an object at the root most of the time.
pub(super) fn schema(number: u64) -> Value {
    let mut random = Random(number.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let old = random.chance(20);
    let mut maker = Maker { random, old };
    let mut schema = if maker.random.chance(80) { maker.object(3) } else { maker.any(3) };
    let fields = schema.as_object_mut().unwrap();
    let definitions = if old { "definitions" } else { "$defs" };
    let text = maker.text();
    let leaf = maker.leaf();
    let to = |name: &str| json!({ "$ref": format!("#/{definitions}/{name}") });
    let list = json!({
        "type": "object", "required": ["value"], "additionalProperties": false,
        "properties": { "value": to("leaf"), "next": { "anyOf": [to("list"), { "type": "null" }] } },
    });
    let tree = json!({
        "type": "object", "required": ["children"], "additionalProperties": false,
        "properties": { "größe": to("Text"), "children": { "type": "array", "items": to("tree"), "maxItems": 2 } },
    });
    fields.insert(definitions.to_owned(), json!({ "leaf": leaf, "Text": text, "list": list, "tree": tree }));
    if old || maker.random.chance(20) {
        let draft = if old {
            "http://json-schema.org/draft-07/schema#"
        } else {
            "https://json-schema.org/draft/2020-12/schema"
        };
        fields.insert("$schema".to_owned(), draft.into());
    }
    if maker.random.chance(20) {
        fields.insert("title".to_owned(), "Of no effect".into());
        fields.insert("default".to_owned(), json!({ "not": 1 }));
    }
    schema
}

impl Maker {
    fn any(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return self.leaf();
        }
        match self.random.below(12) {
            0..3 => self.object(depth - 1),
            3..5 => self.array(depth - 1),
            5 => self.choice(depth - 1),
            6 => self.all_of(),
            7 => self.reference(),
            _ => self.leaf(),
        }
    }

    fn leaf(&mut self) -> Value {
        match self.random.below(12) {
            0..3 => self.text(),
            3..5 => self.integer(),
            5..7 => self.number(),
            7 => json!({ "type": "boolean" }),
            8 => json!({ "type": "null" }),
            9 => self.nullable(),
            _ => self.values(),
        }
    }

    fn reference(&mut self) -> Value {
        let name = self.random.pick(&["leaf", "Text", "list", "tree"]);
        let reference =
            json!({ "$ref": format!("#/{}/{name}", if self.old { "definitions" } else { "$defs" }) });
        match self.random.below(6) {
            // Another keyword beside it counts, from 2019 on.
            0 if !self.old && name == "Text" => json!({ "$ref": "#/$defs/Text", "description": "beside" }),
            1 if !self.old && name == "list" => {
                json!({ "$ref": "#/$defs/list", "required": ["value", "next"] })
            }
            _ => reference,
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for _ in 0..=self.random.below(4) {
            let name = self.random.pick(&NAMES);
            properties.insert(name.to_owned(), self.any(depth));
        }
        for name in properties.keys() {
            if self.random.chance(60) {
                required.push(name.clone());
            }
        }
        let mut object = json!({ "type": "object", "properties": properties, "required": required });
        match self.random.below(10) {
            0 => (),
            1 => object["additionalProperties"] = true.into(),
            2 => object["additionalProperties"] = self.leaf(),
            3 => {
                object["patternProperties"] = json!({ "^x_[a-c]": self.leaf(), "^[1-9]{1,2}$": self.leaf() });
                object["additionalProperties"] = false.into();
            }
            4 => self.counted(&mut object),
            _ => object["additionalProperties"] = false.into(),
        }
        object
    }

    /// Bounds of how many properties there are, of those kinds that are kept to.
    fn counted(&mut self, object: &mut Value) {
        let all: Vec<_> = object["properties"].as_object().unwrap().keys().cloned().collect();
        let count = all.len();
        if self.random.chance(50) {
            // Some of what may be left out has to be there.
            object["additionalProperties"] = false.into();
            let least = object["required"].as_array().unwrap().len();
            object["minProperties"] = (least + 1).min(count).into();
        } else {
            object["required"] = all.into();
            object["additionalProperties"] = self.leaf();
            object["minProperties"] = (count + self.random.below(2)).into();
            object["maxProperties"] = (count + 1 + self.random.below(2)).into();
        }
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut array = json!({ "type": "array" });
        let low = self.random.below(3);
        if self.random.chance(40) {
            let first = vec![self.any(depth), self.leaf()];
            let more = if self.random.chance(50) { false.into() } else { self.leaf() };
            let (few, others) =
                if self.old { ("items", "additionalItems") } else { ("prefixItems", "items") };
            (array[few], array[others]) = (first.into(), more);
        } else {
            array["items"] = self.any(depth);
        }
        if self.random.chance(60) {
            array["minItems"] = low.into();
        }
        let bounded = array["items"] == json!(false) || array["additionalItems"] == json!(false);
        if !bounded || self.random.chance(50) {
            array["maxItems"] = (low + self.random.below(3)).into();
        }
        array
    }

    fn choice(&mut self, depth: usize) -> Value {
        let tag = |name: &str, more: Value| {
            json!({ "type": "object", "required": ["kind", "more"], "additionalProperties": false,
                    "properties": { "kind": { "const": name }, "more": more } })
        };
        match self.random.below(4) {
            0 => json!({ "oneOf": [self.text(), self.integer(), { "type": "null" }] }),
            1 => json!({ "oneOf": [tag("öne", self.any(depth)), tag("two", self.leaf())] }),
            2 => json!({ "anyOf": [tag("öne", self.any(depth)), self.object(depth), self.leaf()] }),
            _ => json!({ "anyOf": [self.any(depth), self.any(depth)] }),
        }
    }

    fn all_of(&mut self) -> Value {
        let low = self.random.below(50);
        match self.random.below(3) {
            0 => json!({ "allOf": [{ "type": "integer", "minimum": low }, { "maximum": low + 20 }] }),
            1 => {
                json!({ "allOf": [{ "type": "string", "minLength": 2 }, { "maxLength": 4, "pattern": "a" }] })
            }
            _ => json!({ "allOf": [
                { "type": "object", "properties": { "a": self.leaf() }, "required": ["a"] },
                { "type": "object", "properties": { "a": true, "größe": self.leaf() },
                  "required": ["größe"], "additionalProperties": false },
            ] }),
        }
    }

    fn text(&mut self) -> Value {
        let low = self.random.below(4);
        match self.random.below(8) {
            0..3 => json!({ "type": "string", "maxLength": low + self.random.below(12) }),
            3 => json!({ "type": "string", "minLength": low, "maxLength": low + self.random.below(6) }),
            4 | 5 => json!({ "type": "string", "pattern": self.random.pick(&PATTERNS), "maxLength": 9 }),
            6 => json!({ "type": "string", "format": self.random.pick(&FORMATS) }),
            _ => json!({ "type": "string" }),
        }
    }

    fn integer(&mut self) -> Value {
        let mut integer = json!({ "type": "integer" });
        let low = i64::try_from(self.random.below(2000)).unwrap() - 1000;
        let far = i64::try_from(self.random.below(300)).unwrap() + 14;
        let names = [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")];
        let (minimum, maximum) = names[self.random.below(2)];
        match self.random.below(6) {
            0 => (),
            1 => integer[minimum] = low.into(),
            2 => integer[maximum] = low.into(),
            3 => (integer["minimum"], integer["maximum"]) = (self.random.tenths(-9, 9).into(), 10.5.into()),
            _ => (integer[minimum], integer[maximum]) = (low.into(), (low + far).into()),
        }
        // Of numbers with more digits than a float holds the library that checks cannot tell.
        if self.random.chance(30) && integer.as_object().unwrap().len() == 3 {
            integer["multipleOf"] = (1 + self.random.below(7)).into();
        }
        integer
    }

    fn number(&mut self) -> Value {
        let mut number = json!({ "type": "number" });
        let low = self.random.tenths(-10, 10);
        let low = if self.random.chance(50) { low.trunc() } else { low };
        // Close together, or far apart.
        let high = if self.random.chance(50) { low + 0.5 } else { self.random.tenths(11, 150) };
        let names = [("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")];
        let (minimum, maximum) = names[self.random.below(2)];
        match self.random.below(5) {
            0 => (),
            1 => number[minimum] = low.into(),
            2 => number[maximum] = low.into(),
            _ => (number[minimum], number[maximum]) = (low.into(), high.into()),
        }
        if self.random.chance(30) && number.as_object().unwrap().len() == 3 {
            number["multipleOf"] = [0.5, 0.25, 0.01, 1.0, 0.1][self.random.below(5)].into();
        }
        number
    }

    fn nullable(&mut self) -> Value {
        match self.random.below(3) {
            0 => json!({ "type": ["string", "null"], "maxLength": self.random.below(9) }),
            1 => json!({ "type": ["integer", "boolean", "null"], "minimum": -5, "maximum": 99 }),
            _ => {
                json!({ "type": ["null", "number", "string"], "maxLength": 5, "minimum": 0, "maximum": 0.75 })
            }
        }
    }

    fn values(&mut self) -> Value {
        let values = [
            json!(self.random.pick(&TEXTS)),
            json!(self.random.pick(&TEXTS)),
            json!(self.random.tenths(-30, 30)),
            json!(self.random.below(1 << 52)),
            json!(-7),
            Value::Null,
            json!(true),
            json!([1, self.random.pick(&TEXTS), []]),
            json!({ "größe": self.random.pick(&TEXTS), "a": { "b": 1.5 } }),
        ];
        if self.random.chance(30) {
            return json!({ "const": values[self.random.below(values.len())] });
        }
        let some: Vec<_> = values.iter().filter(|_| self.random.chance(40)).cloned().collect();
        let some = if some.is_empty() { vec![json!("only")] } else { some };
        // A type beside the values leaves out some of them.
        if some.iter().any(Value::is_string) && self.random.chance(30) {
            return json!({ "type": ["string", "null"], "enum": some });
        }
        json!({ "enum": some })
    }
}
