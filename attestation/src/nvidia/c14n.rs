//! Canonical XML 1.1 without comments, of what [`super::xml`] reads.
//!
//! What that leaves out is what is hard about canonical XML: there are no references to expand, no white space to normalise, no
//! comments, no attributes `xml:*` to inherit and no empty default namespaces. Left are the order of declarations and attributes,
//! the namespaces that are superfluous, and the characters `>` in text and `"` in attributes.
//!
//! Source: W3C, Canonical XML Version 1.1, sections 2.2 to 2.4.

use super::xml::{Attribute, Declaration, Element, Node};

/// The canonical form of `apex` and all below but `omit`. `ancestors`: what is above the apex, outermost first; their namespaces
/// count, as the apex alone is rendered.
pub(super) fn canonical(
    apex: &Element<'_>,
    ancestors: &[&Element<'_>],
    omit: Option<&Element<'_>>,
) -> Vec<u8> {
    let mut in_scope = Vec::new();
    for element in ancestors.iter().copied().chain([apex]) {
        in_scope.retain(|(prefix, _)| element.declared.iter().all(|(inner, _)| inner != prefix));
        in_scope.extend(element.declared.iter().copied());
    }
    let mut writer = Writer { out: String::new(), rendered: Vec::new(), omit };
    writer.element(apex, &in_scope);
    writer.out.into_bytes()
}

struct Writer<'e, 'a> {
    out: String,
    /// Declarations of the elements that are open, the innermost last.
    rendered: Vec<Declaration<'a>>,
    omit: Option<&'e Element<'a>>,
}

impl<'a> Writer<'_, 'a> {
    fn element(&mut self, element: &Element<'a>, declared: &[Declaration<'a>]) {
        let outer = self.rendered.len();
        self.out.push('<');
        self.name(element.name.prefix, element.name.local);
        self.declarations(declared);
        let mut attributes: Vec<&Attribute<'a>> = element.attributes.iter().collect();
        attributes.sort_by_key(|a| (a.namespace, a.name.local));
        for attribute in attributes {
            self.out.push(' ');
            self.name(attribute.name.prefix, attribute.name.local);
            self.value(attribute.value);
        }
        self.out.push('>');
        for child in &element.children {
            match child {
                Node::Text(text) => self.escaped(text, '>', "&gt;"),
                Node::Element(child) if self.omit.is_some_and(|omit| std::ptr::eq(omit, child)) => {}
                Node::Element(child) => self.element(child, &child.declared),
            }
        }
        self.out.push_str("</");
        self.name(element.name.prefix, element.name.local);
        self.out.push('>');
        self.rendered.truncate(outer);
    }

    /// Those that are not already in force, by prefix; the default one has the empty prefix.
    fn declarations(&mut self, declared: &[Declaration<'a>]) {
        let in_force = |prefix| self.rendered.iter().rev().find(|(known, _)| *known == prefix);
        let mut new: Vec<_> =
            declared.iter().copied().filter(|d| in_force(d.0).is_none_or(|(_, uri)| *uri != d.1)).collect();
        new.sort_unstable();
        for (prefix, uri) in &new {
            self.out.push_str(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
            self.out.push_str(prefix);
            self.value(uri);
        }
        self.rendered.extend(new);
    }

    fn name(&mut self, prefix: &str, local: &str) {
        if !prefix.is_empty() {
            self.out.push_str(prefix);
            self.out.push(':');
        }
        self.out.push_str(local);
    }

    fn value(&mut self, value: &str) {
        self.out.push_str("=\"");
        self.escaped(value, '"', "&quot;");
        self.out.push('"');
    }

    fn escaped(&mut self, text: &str, sign: char, reference: &str) {
        let mut parts = text.split(sign);
        self.out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            self.out.push_str(reference);
            self.out.push_str(part);
        }
    }
}
