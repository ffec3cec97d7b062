//! os-release(5).

use std::collections::BTreeMap;

/// The assignments of an os-release file. Lines that are none are ignored, as os-release(5) asks of readers. Of a key
/// that is there twice the last value counts, as in a shell.
pub(crate) fn parse(raw: &[u8]) -> BTreeMap<String, String> {
    raw.split(|b| *b == b'\n')
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line.trim_ascii()).into_owned();
            let (key, value) = line.split_once('=')?;
            let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            valid.then(|| (key.to_owned(), unquote(value)))
        })
        .collect()
}

/// A value without its quotes and backslashes.
fn unquote(value: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => out.extend(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quotes_and_ignores_noise() {
        let os = parse(b"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nNAME='x \\y'\n# c\nno assignment\nA-B=1\nQ=\"a\\\"b\"\nID=last\n");
        assert_eq!(os["PRETTY_NAME"], "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os["ID"], "last");
        assert_eq!(os["NAME"], "x \\y");
        assert_eq!(os["Q"], "a\"b");
        assert_eq!(os.len(), 4);
    }
}
