use super::*;

fn read(text: &[u8], limit: u64) -> Result<usize, XmlErrorKind> {
    let mut xml = Xml::new(text, limit);
    let mut nodes = 0;
    loop {
        match xml.next().map_err(|error| error.kind)? {
            Node::End => return Ok(nodes),
            _ => nodes += 1,
        }
    }
}

#[test]
fn ordinary_xml_is_read() {
    let text = "<?xml version=\"1.0\"?><!-- c --><a x=\"1\"><b/>t &amp; &#65;<![CDATA[<]]></a>\n";
    let mut xml = Xml::new(text.as_bytes(), 1000);
    assert!(matches!(xml.next(), Ok(Node::Open(tag)) if tag.name() == "a" && tag.space == Space::Other));
    assert_eq!(xml.line().expect("text"), "t & A<");
    assert!(matches!(xml.next(), Ok(Node::End)));
}

#[test]
fn the_namespace_counts_and_not_the_prefix() {
    let text = format!("<x:Rule xmlns:x=\"{XCCDF}\"><Rule/><y:Rule xmlns:y=\"other\"/></x:Rule>");
    let mut xml = Xml::new(text.as_bytes(), 1000);
    let mut are = Vec::new();
    while let Ok(node) = xml.next() {
        match node {
            Node::Open(tag) => are.push(tag.is("Rule")),
            Node::End => break,
            _ => {}
        }
    }
    assert_eq!(are, [true, false, false]);
}

#[test]
fn hostile_xml_is_refused() {
    let laughs = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
    let deep = format!("{}{}", "<a>".repeat(300), "</a>".repeat(300));
    let wide = format!("<a {}/>", (0..10_000).map(|n| format!("a{n}=\"1\" ")).collect::<String>());
    for text in [
        laughs,
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
        "<a>&b;</a>",
        "<a>&#0;</a>",
        "<a></b>",
        "<a/><a/>",
        "<a/>t",
        "t<a/>",
        "<a/>&amp;",
        "</a>",
        &deep,
        &wide,
    ] {
        let short = crate::base::text::brief(text);
        assert!(matches!(read(text.as_bytes(), 1 << 20), Err(XmlErrorKind::Malformed(_))), "{short}");
    }
    assert!(matches!(read(b"<a>\xff</a>", 1000), Err(XmlErrorKind::Malformed(_) | XmlErrorKind::Io(_))));
    assert!(matches!(read(b"<a>1234567890</a>", 10), Err(XmlErrorKind::TooLarge(10))));
    assert!(matches!(read(b"", 10), Err(XmlErrorKind::Truncated)));
}

#[test]
fn an_attribute_that_is_there_twice_is_refused() {
    let mut xml = Xml::new(&b"<a x=\"1\" x=\"2\"/>"[..], 1000);
    let Ok(Node::Open(tag)) = xml.next() else { panic!("a tag") };
    assert!(tag.attribute("x").is_err());
    assert!(tag.attribute("y").expect("not there").is_none());
}

#[test]
fn a_document_cut_anywhere_is_refused() {
    let whole = "<?xml version=\"1.0\"?><a x=\"1\"><b>text</b><!-- c --><c/></a>";
    assert!(read(whole.as_bytes(), 1000).is_ok());
    for cut in 0..whole.len() {
        assert!(read(&whole.as_bytes()[..cut], 1000).is_err(), "cut to {:?}", &whole[..cut]);
    }
}

#[test]
fn a_piece_without_end_is_refused() {
    for begin in ["<a>", "<a x='", "<a><!--", "<a><![CDATA["] {
        let mut xml = Xml::new(begin.as_bytes().chain(io::repeat(b'x')), u64::MAX);
        let mut read = || loop {
            match xml.next() {
                Ok(Node::Open(_) | Node::Text | Node::Close) => {}
                Ok(Node::End) => panic!("it has no end"),
                Err(error) => return error.kind,
            }
        };
        assert!(matches!(read(), XmlErrorKind::Malformed(detail) if detail.contains("64 MiB")), "{begin}");
        assert!(xml.buffer.capacity() <= 256 << 20, "{}", xml.buffer.capacity());
    }
}

#[test]
fn a_long_text_is_cut_and_marked() {
    let text = format!("<a>{}</a>", "<b>0123456789</b>".repeat(10_000));
    let mut xml = Xml::new(text.as_bytes(), 1 << 20);
    let _ = xml.next();
    let read = xml.text().expect("text");
    assert!(read.ends_with('…') && (TEXT_BYTES..=TEXT_BYTES + 3).contains(&read.len()));
}
