//! As much of XML as NVIDIA's manifests use, and nothing more.
//!
//! Elements, attributes, namespaces and text, all in printable ASCII. No document type, entities, character references, comments,
//! processing instructions or CDATA sections, no attribute `xml:*`, no undeclaring of namespaces: none of these occurs in a
//! manifest, and each has been used to make two readers of one signed document see two things. Whoever wants one of them gets an
//! error before anything is read.
//!
//! Sources: XML 1.0 (fifth edition), Namespaces in XML 1.0.

use crate::Error;

/// Manifests of today are below 26 KiB.
const MAX_LEN: usize = 64 * 1024;
/// Manifests need 6.
const MAX_DEPTH: usize = 8;
/// Elements and pieces of text. Manifests have about 170.
const MAX_NODES: usize = 2048;
/// The longest element of a manifest has 17.
const MAX_ATTRIBUTES: usize = 32;

const WHAT: &str = "XML document";

/// A declaration may stand in front; it says nothing that is not already demanded.
const DECLARATIONS: [&str; 3] = [
    r#"<?xml version="1.0" encoding="UTF-8"?>"#,
    r#"<?xml version="1.0" encoding="utf-8"?>"#,
    r#"<?xml version="1.0"?>"#,
];

/// A name with its prefix, which is empty without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) prefix: &'a str,
    pub(super) local: &'a str,
}

/// An attribute that declares no namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) name: Name<'a>,
    /// Empty without a prefix.
    pub(super) namespace: &'a str,
    pub(super) value: &'a str,
}

/// A namespace declaration: prefix (empty: the default) and URI.
pub(super) type Declaration<'a> = (&'a str, &'a str);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) name: Name<'a>,
    /// Empty without one.
    pub(super) namespace: &'a str,
    pub(super) declared: Vec<Declaration<'a>>,
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) children: Vec<Node<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node<'a> {
    Element(Element<'a>),
    Text(&'a str),
}

impl<'a> Element<'a> {
    /// Whether this is `local` of `namespace`.
    pub(super) fn is(&self, namespace: &str, local: &str) -> bool {
        self.name.local == local && self.namespace == namespace
    }

    /// The attribute `local` without a namespace.
    pub(super) fn attribute(&self, local: &str) -> Option<&'a str> {
        self.attributes.iter().find(|a| a.namespace.is_empty() && a.name.local == local).map(|a| a.value)
    }

    /// The elements below; text that is not white space is an error.
    pub(super) fn elements(&self) -> Result<Vec<&Element<'a>>, Error> {
        let mut out = Vec::new();
        for child in &self.children {
            match child {
                Node::Element(element) => out.push(element),
                Node::Text(text) if text.trim_ascii().is_empty() => {}
                Node::Text(_) => return Err(fault(format!("text in {}", self.name.local))),
            }
        }
        Ok(out)
    }

    /// The text of an element that has nothing else.
    pub(super) fn text(&self) -> Result<&'a str, Error> {
        match self.children.as_slice() {
            [Node::Text(text)] => Ok(text),
            _ => Err(fault(format!("{} is not text only", self.name.local))),
        }
    }

    /// How many elements at any depth, this one included, are `local` of `namespace`.
    pub(super) fn count(&self, namespace: &str, local: &str) -> usize {
        let below = self.children.iter().map(|child| match child {
            Node::Element(element) => element.count(namespace, local),
            Node::Text(_) => 0,
        });
        below.fold(usize::from(self.is(namespace, local)), usize::saturating_add)
    }
}

fn fault(why: impl Into<String>) -> Error {
    Error::malformed(WHAT, why)
}

/// Parses a whole document and returns its root element.
pub(super) fn parse(bytes: &[u8]) -> Result<Element<'_>, Error> {
    if bytes.len() > MAX_LEN {
        return Err(fault(format!("{} bytes, at most {MAX_LEN} are allowed", bytes.len())));
    }
    let allowed = |b: &u8| matches!(b, b' '..=b'~' | b'\n' | b'\t');
    if !bytes.iter().all(allowed) {
        return Err(fault("a character other than printable ASCII, line feed and tab"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_not_reached| fault("not ASCII"))?;
    let body = DECLARATIONS.iter().find_map(|d| text.strip_prefix(d)).unwrap_or(text);
    if body.contains('&') {
        return Err(fault("an entity or character reference, which no manifest has"));
    }
    let mut parser = Parser { rest: body, scope: Vec::new(), nodes: 0 };
    parser.white_space();
    parser.expect("<")?;
    let root = parser.element(MAX_DEPTH)?;
    parser.white_space();
    if parser.rest.is_empty() { Ok(root) } else { Err(fault("something after the root element")) }
}

struct Parser<'a> {
    rest: &'a str,
    /// All declarations in force, the innermost last.
    scope: Vec<Declaration<'a>>,
    nodes: usize,
}

impl<'a> Parser<'a> {
    fn white_space(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_ascii_start();
        self.rest.len() < before
    }

    fn accept(&mut self, sign: &str) -> bool {
        let after = self.rest.strip_prefix(sign);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), Error> {
        if self.accept(sign) { Ok(()) } else { Err(fault(format!("{sign} is missing"))) }
    }

    /// Everything up to `sign`, which must come and is not taken.
    fn up_to(&mut self, sign: char) -> Result<&'a str, Error> {
        let parts = self.rest.find(sign).and_then(|at| self.rest.split_at_checked(at));
        let (text, rest) = parts.ok_or_else(|| fault(format!("{sign} is missing")))?;
        self.rest = rest;
        Ok(text)
    }

    fn name(&mut self) -> Result<Name<'a>, Error> {
        let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
        let end = self.rest.bytes().position(|b| !is_inner(b)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at_checked(end).ok_or_else(|| fault("not ASCII"))?;
        self.rest = rest;
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let is_name = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !part.contains(':')
        };
        if !is_name(local) || (name.contains(':') && !is_name(prefix)) || prefix == "xml" {
            return Err(fault("a name that is not allowed"));
        }
        Ok(Name { prefix, local })
    }

    fn count_node(&mut self) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES { Err(fault(format!("more than {MAX_NODES} nodes"))) } else { Ok(()) }
    }

    /// An element whose `<` was taken.
    fn element(&mut self, depth: usize) -> Result<Element<'a>, Error> {
        // The only places where markup can begin are those where elements can.
        if self.rest.starts_with('!') {
            return Err(fault("a document type, comment or CDATA section, which no manifest has"));
        }
        if self.rest.starts_with('?') {
            return Err(fault("a processing instruction, which no manifest has"));
        }
        let depth = depth.checked_sub(1).ok_or_else(|| fault(format!("deeper than {MAX_DEPTH}")))?;
        self.count_node()?;
        let (outer, name) = (self.scope.len(), self.name()?);
        let (declared, plain) = self.attributes()?;
        self.scope.extend(&declared);
        let namespace = self.namespace(name.prefix)?;
        let attributes = self.resolve(plain)?;
        let children = if self.accept("/>") {
            Vec::new()
        } else {
            self.expect(">")?;
            self.content(name, depth)?
        };
        self.scope.truncate(outer);
        Ok(Element { name, namespace, declared, attributes, children })
    }

    /// Namespace declarations, and the rest.
    #[expect(clippy::type_complexity, reason = "two lists, taken apart at once")]
    fn attributes(&mut self) -> Result<(Vec<Declaration<'a>>, Vec<(Name<'a>, &'a str)>), Error> {
        let (mut declared, mut plain) = (Vec::<Declaration<'a>>::new(), Vec::<(Name<'a>, &'a str)>::new());
        while self.white_space() && !self.rest.starts_with(['/', '>']) {
            if declared.len().saturating_add(plain.len()) == MAX_ATTRIBUTES {
                return Err(fault(format!("more than {MAX_ATTRIBUTES} attributes")));
            }
            let name = self.name()?;
            let value = self.value()?;
            let declares = match name {
                Name { prefix: "", local: "xmlns" } => Some(""),
                Name { prefix: "xmlns", local } => Some(local),
                Name { .. } => None,
            };
            let Some(prefix) = declares else {
                plain.push((name, value));
                continue;
            };
            // Relative URIs are what canonical XML does not allow; the two of XML itself cannot be declared.
            let reserved =
                matches!(prefix, "xml" | "xmlns") || value.starts_with("http://www.w3.org/XML/1998/");
            if reserved || value.starts_with("http://www.w3.org/2000/xmlns") || !value.contains(':') {
                return Err(fault("a namespace declaration that is not allowed"));
            }
            if declared.iter().any(|(known, _)| *known == prefix) {
                return Err(fault("a namespace is declared twice"));
            }
            declared.push((prefix, value));
        }
        Ok((declared, plain))
    }

    /// `="value"`, where white space in the value is spaces only: nothing to normalise.
    fn value(&mut self) -> Result<&'a str, Error> {
        self.expect("=")?;
        let quote = if self.accept("\"") { '"' } else { '\'' };
        if quote == '\'' {
            self.expect("'")?;
        }
        let value = self.up_to(quote)?;
        self.rest = self.rest.strip_prefix(quote).unwrap_or_default();
        if value.contains(['<', '\n', '\t']) {
            return Err(fault("an attribute with <, line feed or tab"));
        }
        Ok(value)
    }

    fn namespace(&self, prefix: &str) -> Result<&'a str, Error> {
        let found = self.scope.iter().rev().find(|(known, _)| *known == prefix).map(|(_, uri)| *uri);
        match found {
            None if prefix.is_empty() => Ok(""),
            None => Err(fault("a prefix that is not declared")),
            Some(uri) => Ok(uri),
        }
    }

    fn resolve(&self, plain: Vec<(Name<'a>, &'a str)>) -> Result<Vec<Attribute<'a>>, Error> {
        let mut out = Vec::<Attribute<'a>>::new();
        for (name, value) in plain {
            // The default namespace is not for attributes.
            let namespace = if name.prefix.is_empty() { "" } else { self.namespace(name.prefix)? };
            if out.iter().any(|a| a.name.local == name.local && a.namespace == namespace) {
                return Err(fault("an attribute is there twice"));
            }
            out.push(Attribute { name, namespace, value });
        }
        Ok(out)
    }

    /// Everything between the tags, and the end tag.
    fn content(&mut self, name: Name<'a>, depth: usize) -> Result<Vec<Node<'a>>, Error> {
        let mut out = Vec::new();
        loop {
            let text = self.up_to('<')?;
            if text.contains("]]>") {
                return Err(fault("]]> in text"));
            }
            if !text.is_empty() {
                self.count_node()?;
                out.push(Node::Text(text));
            }
            if self.accept("</") {
                if self.name()? != name {
                    return Err(fault("an end tag of another element"));
                }
                self.white_space();
                self.expect(">")?;
                return Ok(out);
            }
            self.expect("<")?;
            out.push(Node::Element(self.element(depth)?));
        }
    }
}
