//! XML and its canonical form. The expected forms were made with libxml2 (lxml 6.1, inclusive canonical XML without comments; for
//! documents without `xml:*` attributes versions 1.0 and 1.1 are the same).

use super::super::c14n::canonical;
use super::super::xml::{self, Element, Node};

fn canonical_text(document: &str) -> String {
    String::from_utf8(canonical(&xml::parse(document.as_bytes()).unwrap(), &[], None)).unwrap()
}

#[test]
fn canonical_forms_are_those_of_libxml2() {
    let vectors = [
        ("<a/>", "<a></a>"),
        ("<?xml version=\"1.0\"?>\n<a  >x</a >\n", "<a>x</a>"),
        (r#"<a b="2" a="1"/>"#, r#"<a a="1" b="2"></a>"#),
        (r#"<a b='say "x"'>1 > 0</a>"#, r#"<a b="say &quot;x&quot;">1 &gt; 0</a>"#),
        (
            r#"<a xmlns="urn:d" xmlns:z="urn:z" xmlns:b="urn:b" z:q="1" b:q="2" q="0"/>"#,
            r#"<a xmlns="urn:d" xmlns:b="urn:b" xmlns:z="urn:z" q="0" b:q="2" z:q="1"></a>"#,
        ),
        // Attributes are in the order of the names of their namespaces, not of their prefixes.
        (
            r#"<a xmlns:a="urn:z" xmlns:z="urn:a" a:x="1" z:x="2" y="3"/>"#,
            r#"<a xmlns:a="urn:z" xmlns:z="urn:a" y="3" z:x="2" a:x="1"></a>"#,
        ),
        // What is declared again without change is left out, what was changed in between is not.
        (
            r#"<a xmlns="urn:d" xmlns:p="urn:p"><b xmlns="urn:d" xmlns:p="urn:p"><p:c xmlns:p="urn:q"><p:d xmlns:p="urn:p"/></p:c></b></a>"#,
            r#"<a xmlns="urn:d" xmlns:p="urn:p"><b><p:c xmlns:p="urn:q"><p:d xmlns:p="urn:p"></p:d></p:c></b></a>"#,
        ),
        (
            r#"<p:a xmlns:p="urn:p"><b/><p:b><c xmlns="urn:c"><d xmlns="urn:d"/><e/></c></p:b></p:a>"#,
            r#"<p:a xmlns:p="urn:p"><b></b><p:b><c xmlns="urn:c"><d xmlns="urn:d"></d><e></e></c></p:b></p:a>"#,
        ),
        ("<a>\n  <b>\t</b>\n  text\n</a>", "<a>\n  <b>\t</b>\n  text\n</a>"),
        (
            r#"<r xmlns="urn:r" xmlns:unused="urn:u" xmlns:A="urn:A" xmlns:a="urn:a"><x unused:k="v" A:k="w" a:k="x" k="y" K="Y"/></r>"#,
            r#"<r xmlns="urn:r" xmlns:A="urn:A" xmlns:a="urn:a" xmlns:unused="urn:u"><x K="Y" k="y" A:k="w" a:k="x" unused:k="v"></x></r>"#,
        ),
    ];
    for (document, want) in vectors {
        assert_eq!(canonical_text(document), want);
        if !want.contains('&') {
            assert_eq!(canonical_text(want), want, "once is enough");
        }
    }
}

fn child<'e, 'a>(element: &'e Element<'a>, local: &str) -> &'e Element<'a> {
    let mut elements = element.children.iter().filter_map(|child| match child {
        Node::Element(element) => Some(element),
        Node::Text(_) => None,
    });
    elements.find(|e| e.name.local == local).unwrap()
}

#[test]
fn a_part_inherits_namespaces_and_a_part_can_be_left_out() {
    let document = r#"<r xmlns="urn:r" xmlns:n="urn:n"><n:x>1</n:x> <s xmlns="urn:s" xmlns:n="urn:m"><i><n:k q="1"/></i></s> <y/></r>"#;
    let root = xml::parse(document.as_bytes()).unwrap();
    let s = child(&root, "s");
    let apex = canonical(child(s, "i"), &[&root, s], None);
    assert_eq!(apex, br#"<i xmlns="urn:s" xmlns:n="urn:m"><n:k q="1"></n:k></i>"#);
    let rest = canonical(&root, &[], Some(s));
    assert_eq!(rest, br#"<r xmlns="urn:r" xmlns:n="urn:n"><n:x>1</n:x>  <y></y></r>"#);
}

fn refused(document: &str) -> String {
    xml::parse(document.as_bytes()).unwrap_err().to_string()
}

#[test]
fn refuses_what_no_manifest_has() {
    for (document, why) in [
        ("<!DOCTYPE a [<!ENTITY b \"c\">]><a/>", "document type"),
        ("<a><!-- x --></a>", "comment"),
        ("<a><![CDATA[x]]></a>", "CDATA"),
        ("<?xml-stylesheet href=\"x\"?><a/>", "processing instruction"),
        ("<a><?x?></a>", "processing instruction"),
        ("<?xml version=\"1.1\"?><a/>", "processing instruction"),
        ("<?xml version=\"1.0\" standalone=\"yes\"?><a/>", "processing instruction"),
        ("<a>&amp;</a>", "entity"),
        ("<a b=\"&#65;\"/>", "character reference"),
        ("<a>\r\n</a>", "printable ASCII"),
        ("<a>\0</a>", "printable ASCII"),
        ("<a>é</a>", "printable ASCII"),
        ("\u{feff}<a/>", "printable ASCII"),
        ("<a b=\"1\n\"/>", "line feed"),
        ("<a b=\"\t\"/>", "line feed or tab"),
        ("<a b=\"<\"/>", "an attribute with <"),
        ("<a xml:id=\"x\"/>", "a name that is not allowed"),
        ("<xml:a/>", "a name that is not allowed"),
        ("<a>]]></a>", "]]> in text"),
    ] {
        assert!(refused(document).contains(why), "{document}: {}", refused(document));
    }
}

#[test]
fn refuses_what_is_not_well_formed() {
    for (document, why) in [
        ("", "< is missing"),
        ("text", "< is missing"),
        ("<a", "> is missing"),
        ("<a>", "< is missing"),
        ("<a></b>", "another element"),
        ("<p:a xmlns:p=\"urn:p\" xmlns:q=\"urn:p\"></q:a>", "another element"),
        ("<a></a x>", "> is missing"),
        ("<a/><b/>", "after the root"),
        ("<a/>text", "after the root"),
        ("<a b/>", "= is missing"),
        ("<a b=c/>", "' is missing"),
        ("<a b=\"c/>", "\" is missing"),
        ("<a b=\"1\"c=\"2\"/>", "> is missing"),
        ("<a b=\"1\" b=\"2\"/>", "there twice"),
        ("<a xmlns:p=\"urn:p\" xmlns:q=\"urn:p\" p:b=\"1\" q:b=\"2\"/>", "there twice"),
        ("<a xmlns:p=\"urn:p\" xmlns:p=\"urn:q\"/>", "declared twice"),
        ("<a xmlns=\"urn:p\" xmlns=\"urn:q\"/>", "declared twice"),
        ("<p:a/>", "not declared"),
        ("<a p:b=\"1\"/>", "not declared"),
        ("<a><b xmlns:p=\"urn:p\"/><p:c/></a>", "not declared"),
        ("<a xmlns:p=\"\"/>", "not allowed"),
        ("<a xmlns=\"\"/>", "not allowed"),
        ("<a xmlns=\"relative\"/>", "not allowed"),
        ("<a xmlns:xml=\"urn:x\"/>", "not allowed"),
        ("<a xmlns:xmlns=\"urn:x\"/>", "not allowed"),
        ("<a xmlns:p=\"http://www.w3.org/XML/1998/namespace\"/>", "not allowed"),
        ("<a xmlns:p=\"http://www.w3.org/2000/xmlns/\"/>", "not allowed"),
        ("<1a/>", "a name"),
        ("<a:b:c xmlns:a=\"urn:a\"/>", "a name"),
        ("<:a/>", "a name"),
        ("<a:/>", "a name"),
        ("< a/>", "a name"),
    ] {
        assert!(refused(document).contains(why), "{document}: {}", refused(document));
    }
}

#[test]
fn limits_are_exact() {
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(xml::parse(nested(8).as_bytes()).is_ok());
    assert!(refused(&nested(9)).contains("deeper than 8"));
    assert!(refused(&nested(5_000)).contains("deeper than 8"));
    let wide = |n: usize| format!("<a>{}</a>", "<b/>".repeat(n));
    assert!(xml::parse(wide(2047).as_bytes()).is_ok());
    assert!(refused(&wide(2048)).contains("more than 2048 nodes"));
    let texts = |n: usize| format!("<a>{}</a>", "<b/>x".repeat(n));
    assert!(refused(&texts(1024)).contains("more than 2048 nodes"));
    let many = |n: usize| {
        let attributes: Vec<_> = (0..n).map(|n| format!(" b{n}=\"\"")).collect();
        format!("<a{}/>", attributes.concat())
    };
    assert!(xml::parse(many(32).as_bytes()).is_ok());
    assert!(refused(&many(33)).contains("more than 32 attributes"));
    let long = |n: usize| format!("<a>{}</a>", " ".repeat(n - 7));
    assert!(xml::parse(long(64 * 1024).as_bytes()).is_ok());
    assert!(refused(&long(64 * 1024 + 1)).contains("at most 65536"));
}

#[test]
fn lookups_are_strict() {
    let root = xml::parse(b"<a xmlns:n=\"urn:n\" n:b=\"1\" c=\"2\"> <d>x</d>\n<e/></a>").unwrap();
    assert_eq!((root.attribute("b"), root.attribute("c")), (None, Some("2")));
    let [d, e] = root.elements().unwrap()[..] else { panic!() };
    assert_eq!(d.text().unwrap(), "x");
    assert!(e.text().unwrap_err().to_string().contains("not text only"));
    assert!(root.text().is_err());
    assert!(d.elements().unwrap_err().to_string().contains("text in d"));
    assert!(root.is("", "a") && !root.is("urn:n", "a"));
    assert_eq!((root.count("", "d"), root.count("", "a"), root.count("urn:n", "d")), (1, 1, 0));
}
